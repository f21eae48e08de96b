"""Pages about a run: the report and galleries, each one self-contained HTML file without a script."""
