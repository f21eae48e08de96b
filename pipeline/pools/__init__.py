"""The pool of raw images: its settings and shards (`listing`), and a reader for each kind of pool."""

from pipeline.pools.listing import Listing, Pool, Shard, format_counts, list_pool

__all__ = ["Listing", "Pool", "Shard", "format_counts", "list_pool"]
