"""The pool of raw images: what it holds (`listing`), what headers tell (`headers`), and a reader for each kind."""

from pipeline.pools.listing import Listing, Pool, Shard, list_pool, told

__all__ = ["Listing", "Pool", "Shard", "list_pool", "told"]
