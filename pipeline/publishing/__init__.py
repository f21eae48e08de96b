"""From a run to shards with a dataset card. It may import pools and execution."""
