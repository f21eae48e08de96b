"""Publish the kept images with their captions as shards. A published shard never changes; new images get new shards.

Which image is in which shard is decided once, and stored as a list in `OUT/.publication/` before the first shard is
written. A shard depends only on this list and on the run's facts. So its bytes are the same after a crash, in a second
run, and with another number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from captioners.prompts import read_prompts
from core.errors import UserError
from core.stages import ENCODED, IMAGE, PORTABLE
from manifests.contents import CONTENTS, SHA256
from manifests.indexing import refuse_unfinished
from manifests.removals import REMOVED, Removals, removals_in, takedowns_in
from manifests.run import Run
from manifests.shards import OCR, TOGETHER, USES, shard_schema
from manifests.storage import Folder
from manifests.tar_shards import tar_features
from pipeline.execution.job_columns import Columns
from pipeline.execution.job_result import JobStats
from pipeline.execution.part_writer import contents_store
from pipeline.execution.planner import plan_shuffled
from pipeline.execution.stage_job import DECODED, stage_table
from pipeline.publishing.card import card, card_name
from pipeline.publishing.card_update import CARD
from pipeline.publishing.croissant import write_croissant
from pipeline.publishing.lists import add_to_lists, refuse_duplicates
from pipeline.publishing.ocr_captions import refuse_without_text
from pipeline.publishing.publication import Publication, refuse_foreign
from pipeline.publishing.published_columns import (
    columns_of_shards,
    published_columns,
    stage_entries,
    stage_tables,
    subsets_of,
)
from pipeline.publishing.removed_rows import removed_of, without_removed
from pipeline.publishing.shard_hashes import forget_hashes
from pipeline.publishing.shard_job import ShardBlocks, write_blocks
from pipeline.publishing.shard_writer import ShardWriter
from pipeline.publishing.takedown import adopt_removals
from pipeline.recipe import Recipe
from pipeline.recipe_file import Publish
from pipeline.stages.registry import outdated

_COPIED = "a part was copied: move the copy away"


@dataclass(frozen=True)
class Published:
    """The result of `publish`, and the state of the dataset.

    Attributes:
        where: URL or path of the dataset, for the user.
        rows: Images in shards.
        shards: Number of shard files.
        bytes: Their total size.
        written: Shards that this call wrote.
        left_out: Images that could not be published: the reason by id.
        stale: Number of listed images that are not to be published any more (dropped by the run, or outdated).
        job: Counts and times of the job; None if there was nothing to do.
        outdated: Number of kept images with a wrong fact from an earlier version. The next `vl3syn run` computes the
            fact again; then they can be published.
        with_text: Number of images in the subset `ocr`; None without that subset.
    """

    where: str
    rows: int
    shards: int
    bytes: int
    written: int
    left_out: Mapping[str, str]
    stale: int
    job: JobStats | None = None
    outdated: int = 0
    with_text: int | None = None


def publish(
    run: Run, recipe: Recipe, settings: Publish, out: Folder, where: str, removed_before: Removals | None = None
) -> Published:
    """Write the shards of all kept images that are in none yet, and shards that are missing; write the dataset card.

    Args:
        run: The run, with captions.
        recipe: The recipe of the run.
        settings: The settings of the publication.
        out: The folder of the dataset.
        where: URL or path of the dataset, for the user.
        removed_before: What was removed elsewhere, and must not be published here, beside what the run has removed.

    Raises:
        UserError: The index is not finished; the run has no captions or keeps no image; `out` holds shards of another
            recipe, or with other settings.
    """
    refuse_unfinished(run)
    columns = published_columns(run, recipe)
    publication = Publication(out=out, format=settings.format, subsets=subsets_of(settings, columns))
    shards = publication.open(settings, stage_tables(run, recipe))
    adopt_removals(publication, removals_in(run.folder.join(REMOVED)) | (removed_before or Removals()))
    removals = removals_in(publication.lists)
    columns = columns_of_shards(out, shards, columns)
    alive = run.verdict().alive
    if OCR in publication.subsets and alive.height:
        refuse_without_text(run, alive)
    kept = without_removed(run, alive, publication, removals)
    refuse_duplicates(kept["id"], f"{run.url}: the index has", _COPIED)
    valid = kept.join(_outdated(run, recipe), on="id", how="anti")
    listed = add_to_lists(valid, settings, out)
    if not listed.height and kept.height:
        raise UserError(f"nothing to publish: all {kept.height:,} captions are outdated; `vl3syn run` makes them again")
    if not listed.height and alive.height:
        raise UserError(f"nothing to publish: all {alive.height:,} images were removed on request")
    if not listed.height:
        raise UserError("nothing to publish: the run keeps no image; `vl3syn funnel` says why")
    missing = _rows_of_missing_shards(publication, listed)
    if removals:  # an image that is listed and not published yet may be removed by its URL
        adopt_removals(publication, removed_of(run, missing.select("id").unique(), removals))
        removals = removals_in(publication.lists)
    index, remaining = run.index.scan(["id"]), listed.filter(~pl.col("id").is_in(sorted(removals.ids)))
    refuse_foreign(missing.join(remaining, on="id", how="semi").select("id"), index, where)
    if removals:  # the pool may have lost images that were removed
        missing = missing.join(index.collect(engine="streaming"), on="id", how="semi", maintain_order="left")
    forget_hashes(publication, publication.names(missing["number"].unique()))
    for subset in publication.subsets:
        out.join(subset).sweep_aside()
    stats = _write_shards(run, recipe, publication, columns, missing, removals) if missing.height else None
    left_out = {id_: why for id_, why in publication.left_out().items() if int(id_) not in removals.ids}
    sizes = publication.sizes()
    names = publication.names(listed["number"].unique()) & sizes.keys()
    published = Published(
        where=where,
        rows=publication.published().height,
        shards=len(names),
        bytes=sum(sizes[name] for name in names),
        written=missing["number"].n_unique() * len(publication.subsets),
        left_out=left_out,
        stale=remaining.join(valid, on="id", how="anti").height,
        job=stats,
        outdated=kept.height - valid.height,
        with_text=publication.count_with_text(),
    )
    _write_card(run, recipe, publication, columns, published, sizes)
    return published


def _write_shards(
    run: Run,
    recipe: Recipe,
    publication: Publication,
    columns: Columns,
    missing: pl.DataFrame,
    removals: Removals,
) -> JobStats:
    """Write the shards of `missing` (see `_rows_of_missing_shards`)."""
    # Beside the published columns, workers read the image and its digest.
    names = [*columns.names, SHA256, ENCODED]
    columns_to_read = replace(columns, names=names, tables={**columns.tables, SHA256: CONTENTS})
    rows, inputs = plan_shuffled(run, recipe, columns_to_read, missing.select("id").unique())
    refuse_duplicates(rows["id"], f"{run.url}: a table has", _COPIED)
    writer = ShardWriter(
        publication=publication,
        inputs=inputs,
        fields=columns.fields,
        prompts=_prompts(run),
        contents=contents_store(run),
        decoded=_are_decoded(run, recipe),
        earlier_form=publication.has_earlier_form(),
        removals=removals,
    )
    return write_blocks(ShardBlocks.of(rows, missing), writer, missing.height)


def _write_card(
    run: Run,
    recipe: Recipe,
    publication: Publication,
    columns: Columns,
    published: Published,
    sizes: Mapping[str, int],
) -> None:
    subsets = publication.subsets
    # Of columns that several subsets have, the last description counts: `ocr` has a section of its own.
    schemas = {
        subset: shard_schema(columns.fields, subsets[subset], alone=TOGETHER not in subsets)
        for subset in sorted(subsets, key=lambda subset: subset != OCR)
    }
    docs = {f.name: (f.metadata or {}).get(b"doc", b"").decode() for schema in schemas.values() for f in schema}
    declares_features = publication.format == "webdataset" and not publication.has_earlier_form()
    features = {subset: tar_features(schema) for subset, schema in schemas.items()} if declares_features else {}
    models = {step.name: step.stage.models for step in recipe.steps}
    text = card(
        run,
        subsets,
        publication.format,
        published.rows,
        columns=docs,
        models=models,
        features=features,
        sizes=sizes,
        with_text=published.with_text,
        takedowns=takedowns_in(publication.lists),
    )
    publication.out.write(CARD, text.encode())
    write_croissant(publication, card_name(run), published.rows, schemas)


def _outdated(run: Run, recipe: Recipe) -> pl.DataFrame:
    """Return the rows with a fact that an earlier version of a stage computed wrong: column `id`."""
    ids = [pl.DataFrame(schema={"id": pl.Int64})]
    ids += [outdated(step.stage, stage_table(run, step)) for step in recipe.steps]
    return pl.concat(ids).unique()


def _rows_of_missing_shards(publication: Publication, listed: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `listed` whose shard is missing in some subset, with their `position_in_shard`."""
    stored = publication.sizes().keys()
    missing = [number for number in listed["number"].unique() if not publication.names([number]) <= stored]
    positioned = listed.with_columns(pl.int_range(pl.len()).over("number").alias("position_in_shard"))
    return positioned.filter(pl.col("number").is_in(missing))


def _prompts(run: Run) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each caption: those of the recipe's stage, else the default ones."""
    prompts = {use: read_prompts(use) for use in (*USES, OCR)}
    for entry in stage_entries(run):
        use = entry["stage"].removesuffix("_caption")
        if use in USES and "prompts" in entry:
            prompts[use] = tuple(entry["prompts"])
    return prompts


def _are_decoded(run: Run, recipe: Recipe) -> bool:
    """Return whether a stage has decoded every image. Then every kept image can be decoded: others are errors.

    Earlier versions sent the input `portable` to a server without decoding it.
    """
    for step in recipe.steps:
        if IMAGE in step.stage.reads:
            return True
        provenances = stage_table(run, step).provenances().values() if PORTABLE in step.stage.reads else ()
        if provenances and all(provenance.get(DECODED) for provenance in provenances):
            return True
    return False
