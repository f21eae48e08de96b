"""The version of the software, as provenance and `vl3syn --version` tell it."""

__version__ = "0.1.0"
