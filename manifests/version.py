"""The version of the software, for provenance and `vl3syn --version`."""

__version__ = "0.1.0"
