"""What the pipeline does for a data set, measured: docs/evidence.md."""
