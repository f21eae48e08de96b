"""Overlap: is what we train on also in a benchmark? Pictures by hashes, texts by n-grams."""
