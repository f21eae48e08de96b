"""Write a run as shards with a dataset card. This package may import `pipeline.pools` and `pipeline.execution`."""
