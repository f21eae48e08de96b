"""Captions: coarse ones to filter by, short and detailed ones to train on. May import core and manifests only."""
