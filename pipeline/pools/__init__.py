"""The pool of raw images: what it holds (`listing`), what headers tell (`headers`), and a reader for each kind."""

from pipeline.pools.listing import Listing, Pool, Shard, format_counts, list_pool

__all__ = ["Listing", "Pool", "Shard", "format_counts", "list_pool"]
