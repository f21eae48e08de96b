"""Publish the kept clips of a run as records. A published shard never changes; new clips get new shards.

As for images (`pipeline.publishing.publish`), lists that are written first fix which clip is in which shard. So the
bytes are the same after a crash, in a second run, and with another number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from core.errors import UserError
from manifests.indexing import refuse_unfinished
from manifests.record_files import schema
from manifests.removals import REMOVED, Removals, removals_in
from manifests.run import Run, step_name
from manifests.storage import Folder
from pipeline.execution.job_result import JobStats
from pipeline.execution.planner import plan_shuffled
from pipeline.publishing.card import card_name
from pipeline.publishing.card_update import CARD
from pipeline.publishing.clips.card import clips_card
from pipeline.publishing.clips.facts import Facts, facts_of
from pipeline.publishing.clips.media import ClipMedia, check_root, check_settings, media_folder
from pipeline.publishing.clips.publication import ClipPublication
from pipeline.publishing.clips.records import Dataset
from pipeline.publishing.clips.shard_writer import ClipShardWriter
from pipeline.publishing.croissant import CLIPS, write_croissant
from pipeline.publishing.lists import add_to_lists, refuse_duplicates
from pipeline.publishing.publication import refuse_foreign
from pipeline.publishing.published_columns import stage_entries
from pipeline.publishing.removed_rows import identities_of_run
from pipeline.publishing.shard_hashes import forget_hashes
from pipeline.publishing.shard_job import ShardBlocks, write_blocks
from pipeline.recipe import Recipe
from pipeline.recipe_file import PublishClips

_COPIED = "a part was copied: move the copy away"


@dataclass(frozen=True)
class PublishedClips:
    """The result of `publish_clips`, and the state of the data set.

    Attributes:
        where: URL or path of the data set, for the user.
        rows: Clips in shards.
        records: Number of records, by subset.
        shards: Number of files of records.
        bytes: Their total size, and that of the clips' own files.
        written: Files of records that this call wrote.
        left_out: Clips that could not be published: the reason by id.
        rejected: How many facts became no record, by reason: a question that a model answers blindly, ….
        stale: Number of listed clips that are not to be published any more: dropped by the run, or removed on request.
        job: Counts and times of the job; None if there was nothing to do.
    """

    where: str
    rows: int
    records: Mapping[str, int]
    shards: int
    bytes: int
    written: int
    left_out: Mapping[str, str]
    rejected: Mapping[str, int]
    stale: int
    job: JobStats | None = None


def publish_clips(
    run: Run,
    recipe: Recipe,
    settings: PublishClips,
    out: Folder,
    where: str,
    removed_before: Removals | None = None,
    films: Run | None = None,
) -> PublishedClips:
    """Write the records of all kept clips that are in no shard yet, and files that are missing; write the card.

    Args:
        run: The run of clips, with facts that become records.
        recipe: The recipe of the run.
        settings: The settings of the publication.
        out: The folder of the data set.
        where: URL or path of the data set, for the user.
        removed_before: What was removed elsewhere, and must not be published here, beside what the run has removed.
        films: The run of the films that the clips are pieces of: its funnel and models are on the card.

    Raises:
        UserError: The index is not finished; the run is not one of clips, has no facts or keeps no clip; films cannot
            be referenced, or read now; `out` holds shards of another recipe, or with other settings.
    """
    check_settings(settings.films, settings.media)
    refuse_unfinished(run)
    facts = facts_of(run, recipe)
    root = check_root(recipe.pool.root(), settings.media) if settings.films == "reference" else ""
    publication = ClipPublication(out, facts.subsets(settings), settings.films)
    publication.open(settings, _tables(run, facts), _pool_in_media(recipe, root))
    removals = removals_in(run.folder.join(REMOVED)) | (removed_before or Removals())
    alive = run.verdict().alive
    refuse_duplicates(alive["id"], f"{run.url}: the index has", _COPIED)
    kept = _without_removed(run, alive, removals)
    listed = add_to_lists(kept, settings, out)
    if not listed.height:
        removed = f": all {alive.height:,} clips were removed on request" if alive.height else ""
        raise UserError(f"nothing to publish{removed or ': the run keeps no clip; `vl3syn funnel` says why'}")
    missing = _rows_of(publication.missing(listed), listed)
    refuse_foreign(missing.select("id"), run.index.scan(["id"]), where)
    dataset = Dataset(card_name(run), publication.subsets, facts.authors)
    before = publication.sizes().keys()
    forget_hashes(publication, publication.names(missing["number"].unique()))
    stats = _write_shards(run, recipe, publication, facts, dataset, root, missing) if missing.height else None
    numbers = sorted(listed["number"].unique())
    account, sizes = publication.accounts(numbers), publication.sizes()
    in_shards = listed.filter(~pl.col("id").is_in([int(id_) for id_ in account.left_out]))
    published = PublishedClips(
        where=where,
        rows=in_shards.height,
        records={subset: account.records.get(subset, 0) for subset in publication.subsets},
        shards=len(sizes),
        bytes=sum(sizes.values()) + publication.media_bytes(numbers),
        written=len(sizes.keys() - before),
        left_out=account.left_out,
        rejected=account.rejected,
        stale=listed.join(kept, on="id", how="anti").height,
        job=stats,
    )
    text = clips_card(run, recipe, publication, account, in_shards, films)
    out.write(CARD, text.encode())
    schemas = dict.fromkeys(publication.subsets, schema())
    write_croissant(publication, card_name(run), sum(published.records.values()), schemas, CLIPS)
    return published


def _tables(run: Run, facts: Facts) -> dict[str, str]:
    """Return the tables that records are made of, by the names of their steps."""
    used = set(facts.columns.tables.values())
    return {step_name(entry): entry["table"] for entry in stage_entries(run) if entry["table"] in used}


def _pool_in_media(recipe: Recipe, media: str) -> str:
    """Return the path of the pool in the media folder, which paths in records start with; it names no machine."""
    return os.path.relpath(recipe.pool.root().path, media) if media else ""


def _without_removed(run: Run, alive: pl.DataFrame, removals: Removals) -> pl.DataFrame:
    """Return the rows of `alive` that were not removed on request, column `id`."""
    if not removals:
        return alive
    removed = removals.fitting(identities_of_run(run)).select("id").collect(engine="streaming")
    return alive.join(removed, on="id", how="anti")


def _rows_of(numbers: list[int], listed: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `listed` in the shards with these numbers, with their `position_in_shard`."""
    positioned = listed.with_columns(pl.int_range(pl.len()).over("number").alias("position_in_shard"))
    return positioned.filter(pl.col("number").is_in(numbers))


def _write_shards(
    run: Run,
    recipe: Recipe,
    publication: ClipPublication,
    facts: Facts,
    dataset: Dataset,
    root: str,
    missing: pl.DataFrame,
) -> JobStats:
    rows, inputs = plan_shuffled(run, recipe, facts.columns, missing.select("id"))
    refuse_duplicates(rows["id"], f"{run.url}: a table has", _COPIED)
    for subset in publication.subsets:
        publication.out.join(subset).sweep_aside()
    for number in missing["number"].unique():
        publication.out.join(media_folder(number)).sweep_aside()
    media = ClipMedia(publication.films, publication.out, root)
    writer = ClipShardWriter(publication, inputs, dataset, media)
    return write_blocks(ShardBlocks.of(rows, missing), writer, missing.height)
