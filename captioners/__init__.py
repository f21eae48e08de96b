"""Captions: coarse ones to filter by, short and detailed ones to train on. It may import core and manifests."""
