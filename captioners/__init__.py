"""Captions: coarse ones to filter by, later the short and detailed ones that are published."""
