"""Publish a run of clips as records to train on (`core.records`), with the films or references to them."""
