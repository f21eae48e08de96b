"""Stages that compute scores for rules: each has a frozen configuration and a callable over batches."""
