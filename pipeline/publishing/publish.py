"""Publish the kept images with their captions as shards. A published shard never changes; new images get new shards.

Which image is in which shard is decided once, and stored as a list in `OUT/.publication/` before the first shard is
written. A shard depends only on this list and on the run's facts. So its bytes are the same after a crash, in a second
run, and with another number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from captioners.prompts import read_prompts
from core.errors import UserError
from core.stages import ENCODED, IMAGE, PORTABLE
from manifests.contents import CONTENTS, SHA256
from manifests.embeddings import is_embedding
from manifests.indexing import refuse_unfinished
from manifests.parts import to_bytes
from manifests.priorities import priority
from manifests.run import Run, step_name
from manifests.schemas import INDEX
from manifests.shards import LISTS, OCR, RENAMED, TOGETHER, USES, shard_schema
from manifests.storage import Folder
from manifests.tar_shards import tar_features
from pipeline.execution.job_columns import Columns
from pipeline.execution.job_result import JobStats
from pipeline.execution.part_writer import contents_store
from pipeline.execution.planner import plan_shuffled
from pipeline.execution.stage_job import DECODED, stage_table
from pipeline.publishing.card import card
from pipeline.publishing.ocr_captions import missing_command, refuse_without_text
from pipeline.publishing.ocr_rows import count_ocr_rows
from pipeline.publishing.publication import LISTED, Publication, Shards, listed_in, refuse_duplicates, refuse_foreign
from pipeline.publishing.shard_job import ShardBlocks, write_blocks
from pipeline.publishing.shard_writer import ShardWriter
from pipeline.recipe import Recipe
from pipeline.recipe_file import Publish
from pipeline.stages.download.columns import DESCRIBED
from pipeline.stages.registry import outdated

_COPIED = "a part was copied: move the copy away"
_INDEX_COLUMNS = ("width", "height", "format", "url", "alt_text", "license", "shard", "key")


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


def publish(run: Run, recipe: Recipe, settings: Publish, out: Folder, where: str) -> Published:
    """Write the shards of all kept images that are in none yet, and shards that are missing; write the dataset card.

    Args:
        run: The run, with captions.
        recipe: The recipe of the run.
        settings: The settings of the publication.
        out: The folder of the dataset.
        where: URL or path of the dataset, for the user.

    Raises:
        UserError: The index is not finished; the run has no captions or keeps no image; `out` holds shards of another
            recipe, or with other settings.
    """
    refuse_unfinished(run)
    columns = _columns(run, recipe)
    publication = Publication(out=out, format=settings.format, subsets=_subsets(settings, columns))
    shards = publication.open(settings, {step_name(entry): entry["table"] for entry in _stage_entries(run)})
    columns = _columns_of_shards(out, shards, columns)
    kept = run.verdict().alive
    if OCR in publication.subsets and kept.height:
        refuse_without_text(run, kept)
    refuse_duplicates(kept["id"], f"{run.url}: the index has", _COPIED)
    valid = kept.join(_outdated(run, recipe), on="id", how="anti")
    listed = add_to_lists(valid, settings, out)
    if not listed.height and kept.height:
        raise UserError(f"nothing to publish: all {kept.height:,} captions are outdated; `vl3syn run` makes them again")
    if not listed.height:
        raise UserError("nothing to publish: the run keeps no image; `vl3syn funnel` says why")
    missing = _rows_of_missing_shards(publication, listed)
    refuse_foreign(missing.select("id"), run.index.scan(["id"]), where)
    stats = _write_shards(run, recipe, publication, columns, missing) if missing.height else None
    left_out = publication.left_out()
    sizes = _sizes(publication)
    numbers = listed["number"].unique()
    names = publication.names(numbers)
    texts = count_ocr_rows(publication.lists, numbers, publication.format) if OCR in publication.subsets else None
    published = Published(
        where=where,
        rows=texts if texts is not None and len(publication.subsets) == 1 else listed.height - len(left_out),
        shards=len(names),
        bytes=sum(sizes[name] for name in names),
        written=missing["number"].n_unique() * len(publication.subsets),
        left_out=left_out,
        stale=listed.join(valid, on="id", how="anti").height,
        job=stats,
        outdated=kept.height - valid.height,
        with_text=texts,
    )
    _write_card(run, recipe, publication, columns, published, sizes)
    return published


def _stage_entries(run: Run) -> list[dict[str, Any]]:
    """Return the entries of the stages in the run's recipe."""
    return run.recipe.get("stages") or []


def _columns(run: Run, recipe: Recipe) -> Columns:
    """Return the columns that are published. What describes a downloaded image replaces what its list says."""
    fields = {name: INDEX.field(name) for name in (*_INDEX_COLUMNS, "sha256")}
    downloaded = recipe.download.table if recipe.download else ""
    stored = {name: column for name, column in DESCRIBED.items() if downloaded}
    tables = dict.fromkeys(stored, downloaded)
    for stage, entry in zip(run.stages, _stage_entries(run), strict=True):
        for field in stage.table.writes:
            if not is_embedding(field) and field.name not in stored.values():
                fields[field.name], tables[field.name] = field, entry["table"]
    return Columns(names=list(fields), tables=tables, fields=fields, stored=stored, downloaded=downloaded)


def _subsets(settings: Publish, columns: Columns) -> dict[str, tuple[str, ...]]:
    """Return the subsets, each with its captions."""
    captions = tuple(use for use in USES if f"{use}_caption" in columns.fields)
    if not captions:
        raise UserError("nothing to publish: the run has no short and no detailed captions; `vl3syn caption` first")
    if lacking := [use for use in settings.subsets if use not in (*captions, OCR)]:
        raise UserError(f"the run has no {lacking[0]} captions: `vl3syn caption {lacking[0]}` first")
    if OCR in settings.subsets and (command := missing_command(columns.fields)):
        raise UserError(f"the subset ocr needs short captions and the texts in the images: `{command}` first")
    return {use: (use,) for use in settings.subsets} or {TOGETHER: captions}


def _columns_of_shards(out: Folder, shards: Shards, columns: Columns) -> Columns:
    """Return the columns that the existing Parquet shards have, so that all shards have the same; else all columns."""
    paths = [file.path for file in shards.values() if file.path.endswith(".parquet")]
    if not paths:
        return columns
    stored = pq.read_schema(paths[0], filesystem=out.filesystem).names
    captions = {f"{use}_caption" for use in USES}
    fields = {n: f for n, f in columns.fields.items() if n in captions or RENAMED.get(n, n) in stored}
    return replace(columns, names=list(fields), fields=fields)


def _write_shards(
    run: Run, recipe: Recipe, publication: Publication, columns: Columns, missing: pl.DataFrame
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
    )
    publication.out.write("README.md", text.encode())


def _outdated(run: Run, recipe: Recipe) -> pl.DataFrame:
    """Return the rows with a fact that an earlier version of a stage computed wrong: column `id`."""
    ids = [pl.DataFrame(schema={"id": pl.Int64})]
    ids += [outdated(step.stage, stage_table(run, step)) for step in recipe.steps]
    return pl.concat(ids).unique()


def add_to_lists(kept: pl.DataFrame, settings: Publish, out: Folder) -> pl.DataFrame:
    """Add new images to the lists; return all listed images.

    Args:
        kept: The images to publish, column `id`.
        settings: The settings of the publication.
        out: The folder of the dataset.

    Returns:
        Columns `id` and `number` (of the shard), in order. Listed images may not be in `kept` any more.
    """
    lists = out.join(LISTS)
    while True:
        listed, next_name = listed_in(lists)
        new = _numbered(kept.join(listed, on="id", how="anti"), listed, settings)
        # If a concurrent publication was faster, its list counts, and the next list has the images that it lacks.
        if not new.height or lists.create_file(next_name, to_bytes(new.to_arrow().cast(LISTED), name=next_name)):
            return pl.concat([listed, new])


def _numbered(new: pl.DataFrame, listed: pl.DataFrame, settings: Publish) -> pl.DataFrame:
    """Return new images in random order (by the seed), with shard numbers that continue those of `listed`."""
    first = (listed["number"].max() or 0) + 1 if listed.height else 0  # type: ignore[operator]
    number = (pl.int_range(pl.len()) // settings.rows_per_shard + first).cast(pl.Int32).alias("number")
    return new[np.argsort(priority(new["id"].to_numpy(), settings.seed))].with_columns(number)


def _rows_of_missing_shards(publication: Publication, listed: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `listed` whose shard is missing in some subset, with their `position_in_shard`."""
    stored = _sizes(publication).keys()
    missing = [number for number in listed["number"].unique() if not publication.names([number]) <= stored]
    positioned = listed.with_columns(pl.int_range(pl.len()).over("number").alias("position_in_shard"))
    return positioned.filter(pl.col("number").is_in(missing))


def _prompts(run: Run) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each caption: those of the recipe's stage, else the default ones."""
    prompts = {use: read_prompts(use) for use in (*USES, OCR)}
    for entry in _stage_entries(run):
        use = entry["stage"].removesuffix("_caption")
        if use in USES and "prompts" in entry:
            prompts[use] = tuple(entry["prompts"])
    return prompts


def _sizes(publication: Publication) -> dict[str, int]:
    """Return the length in bytes of each file of the subsets, by its path in the publication."""
    files = [file for subset in publication.subsets for file in publication.out.join(subset).files()]
    return {publication.out.relative(file.path): file.size for file in files}


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
