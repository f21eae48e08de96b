"""Scores that rules decide by: each module is one stage, a frozen config and a callable over batches."""
