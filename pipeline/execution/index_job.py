"""The index job: read the shards of a listed pool that are not stored, on local workers or on Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from core.cluster import is_without_ray
from core.cpus import count_cpus
from manifests import indexing
from manifests.compaction import sweep
from manifests.run import Run, index_table
from manifests.version import __version__
from pipeline.execution.index import READER, Todo, account, check_ids, chunks, is_small, read_chunk, unread
from pipeline.execution.job_log import record
from pipeline.execution.job_result import JobResult, LocalResult
from pipeline.execution.local_workers import LocalWorkers, is_importable, ready
from pipeline.execution.part_writer import Store
from pipeline.execution.progress import Progress
from pipeline.execution.ray_job import map_blocks, run_job
from pipeline.execution.receipts import reported
from pipeline.execution.rescue import ShardRescue
from pipeline.pools import Listing, Pool, format_counts

if TYPE_CHECKING:
    from ray.data import Dataset


def build_index(
    run: Run, pool: Pool, listing: Listing, say: Callable[[str], None], local: LocalWorkers | None = None
) -> JobResult:
    """Index the shards of a listed pool that the run has not stored, or that must be read again.

    Args:
        run: The run.
        pool: Its pool.
        listing: The listed pool.
        say: Called with each line for the user.
        local: Workers for a small pool; None: Ray's.

    Raises:
        UserError: Two images have the same id, shards changed in a pool with ids of its own, or see `run_job`.
    """
    begin = time.perf_counter()
    table = index_table(run.folder, pool.index_schema)
    todo = unread(table, listing, pool)
    for line in _listing_lines(pool, listing, todo):
        say(f"pool: {line}")
    stored = table.scan(["id"]).select(pl.len()).collect().item()
    if not todo.shards.num_rows:
        indexing.end(table)
        check_ids(table, pool)
        return JobResult.nothing_computed("index", stored, time.perf_counter() - begin)
    for source in filter(None, (listing.image, listing.alt_text)):
        say(f"pool: {source}")
    provenance = {"stage": "index", "pool": pool.kind, "reader": READER, "vl3syn": __version__}
    sweep(table)
    index_store = Store(table, table.next_writer(), provenance)

    call = partial(read_chunk, pool=pool, root=listing.root, store=index_store)

    def job(dataset: Dataset, alone: bool = False) -> Dataset:
        return map_blocks(dataset, reported, fn_kwargs={"call": call})

    indexing.begin(table)
    work = pool.work(todo.shards)
    done = LocalResult(untried=list(chunks(todo.shards, work)))
    with Progress("index", todo.shards.num_rows, pool.noun, unit="files") as progress:
        if local and is_small(work) and is_importable(type(pool)) and is_without_ray():
            done = local.run(done.untried, ready(call), count_cpus(), progress, preloaded=False)
        if local and (done.untried or done.lost):
            local.close()  # Ray needs their memory
        stats = run_job(done.untried, job, ShardRescue(pool, index_store), done, progress)
    indexing.end(table)
    check_ids(table, pool)
    for line in account(table, index_store.writer, pool):
        say(f"pool: {line}")
    return record(run, JobResult.of("index", stats, stored))


def _listing_lines(pool: Pool, listing: Listing, todo: Todo) -> Iterator[str]:
    """Yield lines for the user about skipped files, and about stored shards that differ from the pool."""
    if listing.passed_over:
        what = f" files that are no {pool.noun}s by their ending" if pool.shard_is_image or pool.has_films else ""
        yield f"passed over{what}: {format_counts(listing.passed_over)}"
    if todo.changed and not pool.bytes_are_work:
        yield f"{todo.changed:,} films have other clips now; clips that are the same keep their facts"
    elif todo.changed:
        new = "rows with another URL, text or size count" if pool.same_row else f"their {pool.noun}s count"
        yield f"{todo.changed:,} indexed shards have another length now; {new} as new"
    if todo.misread:
        yield (
            f"{todo.misread:,} tars are read again: an earlier version mixed up texts of images with dots in "
            "their names or with one name, or lost letters that are not UTF-8; ids and facts stay (docs/run.md says "
            "what to do about those of alt text)"
        )
    if todo.vanished:
        yield f"{todo.vanished:,} indexed shards are not there any more; their rows stay"
