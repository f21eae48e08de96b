"""Pools of raw images: a class for each kind lists, indexes and reads it (`base`); `registry` finds the class."""

from pipeline.pools.base import Pool
from pipeline.pools.listing import Listing, Shard, format_counts
from pipeline.pools.registry import pool_of

__all__ = ["Listing", "Pool", "Shard", "format_counts", "pool_of"]
