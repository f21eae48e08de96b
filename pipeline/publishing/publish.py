"""Publish the kept images with their captions as shards; a published shard never changes, later ones are added.

The assignment of images to shards is decided once, and stored in `OUT/.publication/` before the first shard is written.
A shard is then a pure function of that list and of the run's facts: the bytes are the same after a crash, in a second
run, and with another number of workers. A pool that has grown adds a list and more shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from captioners.prompts import read_prompts
from core.errors import UserError
from core.stages import ENCODED, IMAGE
from manifests.balance import priority
from manifests.contents import CONTENTS, SHA256, contents_table
from manifests.embeddings import is_embedding
from manifests.indexing import refuse_unfinished
from manifests.parts import to_bytes
from manifests.run import Run, stage_folder
from manifests.schemas import INDEX, table_schema
from manifests.shards import LISTS, RENAMED, TOGETHER, USES, shard_schema
from manifests.storage import Folder
from manifests.tables import Table
from manifests.tar_shards import tar_features
from manifests.version import __version__
from pipeline.execution.part_writer import Store
from pipeline.execution.planner import Columns, plan
from pipeline.execution.ray_job import JobDone, run_job
from pipeline.publishing.card import card
from pipeline.publishing.publication import LISTED, Publication, Shards, listed_in, refuse_twice
from pipeline.publishing.shard_writer import ShardWriter
from pipeline.recipe import Recipe
from pipeline.recipe_file import Publish
from pipeline.stages.registry import outdated

_COPIED = "a part was copied: move the copy away"
_OF_THE_INDEX = ("width", "height", "format", "url", "alt_text", "license", "shard", "key")


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
        outdated: Number of kept images with a wrong fact from an earlier version. The next run computes the fact again;
            then they can be published.
    """

    where: str
    rows: int
    shards: int
    bytes: int
    written: int
    left_out: Mapping[str, str]
    stale: int
    job: JobDone | None = None
    outdated: int = 0


def publish(run: Run, recipe: Recipe, how: Publish, out: Folder, where: str) -> Published:
    """Write the shards of all kept images that are in none yet, and shards that are missing; write the dataset card.

    Args:
        run: The run, with captions.
        recipe: The recipe of the run.
        how: The settings of the publication.
        out: The folder of the dataset.
        where: URL or path of the dataset, for the user.

    Raises:
        UserError: The index is not finished; the run has no captions or keeps no image; `out` holds shards of another
            recipe, or with other settings.
    """
    refuse_unfinished(run)
    columns = _columns(run)
    subsets = _subsets(how, columns)
    place = Publication(out, how.format, subsets)
    written_shards = place.open_settled(
        how, {entry["stage"]: entry["table"] for entry in run.recipe.get("stages") or []}
    )
    columns = _as_begun(out, written_shards, columns)
    kept = run.verdict().alive
    refuse_twice(kept["id"], f"{run.url}: the index has", _COPIED)
    right = kept.join(_outdated(run, recipe), on="id", how="anti")
    outdated_ = kept.height - right.height
    listed, stale = _list(right, how, out)
    if not listed.height and outdated_:
        raise UserError(f"nothing to publish: all {outdated_:,} captions are outdated; `vl3syn run` makes them again")
    if not listed.height:
        raise UserError("nothing to publish: the run keeps no image; `vl3syn funnel` says why")
    missing = _missing(place, listed)
    job = None
    if missing.height:
        rows, inputs = plan(run, recipe.pool, _needed(columns), missing.select("id").unique(), carry=False)
        refuse_twice(rows["id"], f"{run.url}: a table has", _COPIED)
        fields = {name: field for name, (_, field) in columns.items()}
        table = contents_table(run.folder)
        contents = Store(table, table.next_writer(), {"vl3syn": __version__})
        writer = ShardWriter(
            out,
            how.format,
            inputs,
            fields,
            _prompts(run),
            subsets,
            contents,
            _decoded(recipe),
            place.first_form(),
        )
        job = run_job(_blocks(rows, missing), writer.job)
    done = _sum_up(place, where, listed, stale, job, missing["number"].n_unique() * len(subsets))
    done = replace(done, outdated=outdated_)
    schemas = _schemas({name: field for name, (_, field) in columns.items()}, subsets)
    of_tars = how.format == "webdataset" and not place.first_form()
    features = {subset: tar_features(schema) for subset, schema in schemas.items()} if of_tars else {}
    models = {step.stage.name: step.stage.models for step in recipe.steps}
    text = card(run, subsets, how.format, done.rows, _docs(schemas), models, features, _sizes(place))
    out.write("README.md", text.encode())
    return done


def _columns(run: Run) -> dict[str, tuple[str, pa.Field]]:
    """Return the columns that are published: name -> the table that stores it ("": the index), and its field."""
    columns: dict[str, tuple[str, pa.Field]] = {name: ("", INDEX.field(name)) for name in (*_OF_THE_INDEX, "sha256")}
    for stage, entry in zip(run.stages, run.recipe.get("stages") or [], strict=True):
        columns |= {f.name: (entry["table"], f) for f in stage.table.writes if not is_embedding(f)}
    return columns


def _subsets(how: Publish, columns: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Return the subsets, each with its captions."""
    captions = tuple(use for use in USES if f"{use}_caption" in columns)
    if not captions:
        raise UserError("nothing to publish: the run has no short and no detailed captions; `vl3syn caption` first")
    if lacking := [use for use in how.subsets if use not in captions]:
        raise UserError(f"the run has no {lacking[0]} captions: `vl3syn caption {lacking[0]}` first")
    return {use: (use,) for use in how.subsets} or {TOGETHER: captions}


def _as_begun(
    out: Folder, written_shards: Shards, columns: dict[str, tuple[str, pa.Field]]
) -> dict[str, tuple[str, pa.Field]]:
    """Return the columns that existing Parquet shards have, so that all shards have the same; without shards, all."""
    shards = [file.path for file in written_shards.values() if file.path.endswith(".parquet")]
    if not shards:
        return columns
    names = {name for path in shards[:1] for name in pq.read_schema(path, filesystem=out.filesystem).names}
    captions = {f"{use}_caption" for use in USES}
    return {n: c for n, c in columns.items() if n in captions or RENAMED.get(n, n) in names}


def _outdated(run: Run, recipe: Recipe) -> pl.DataFrame:
    """Return the rows that a stage would compute again because an earlier version computed them wrong: column `id`."""
    ids = [pl.DataFrame(schema={"id": pl.Int64})]
    for step in recipe.steps:
        table = Table(stage_folder(run.folder, step.table), table_schema(step.stage.writes))
        ids.append(outdated(step.stage, table))
    return pl.concat(ids).unique()


def _list(kept: pl.DataFrame, how: Publish, out: Folder) -> tuple[pl.DataFrame, int]:
    """Add new images to the lists; return all listed images, and how many of them are not in `kept`.

    Args:
        kept: The images to publish, column `id`.
        how: The settings of the publication.
        out: The folder of the dataset.

    Returns:
        Columns `id` and `number` (of the shard), in order; the number of listed images that are not in `kept`.
    """
    lists = out.join(LISTS)
    while True:
        listed, next_name = listed_in(lists)
        new = _numbered(kept.join(listed, on="id", how="anti"), listed, how)
        # If a concurrent publication was faster, its list counts; images that it lacks follow in the next list.
        if not new.height or lists.create_file(next_name, to_bytes(new.to_arrow().cast(LISTED), name=next_name)):
            break
    listed = pl.concat([listed, new])
    return listed, listed.join(kept, on="id", how="anti").height


def _numbered(new: pl.DataFrame, listed: pl.DataFrame, how: Publish) -> pl.DataFrame:
    """Return new images in random order (by the seed), with shard numbers that continue after the listed ones."""
    first = (listed["number"].max() or 0) + 1 if listed.height else 0  # type: ignore[operator]
    number = (pl.int_range(pl.len()) // how.rows_per_shard + first).cast(pl.Int32).alias("number")
    return new[np.argsort(priority(new["id"].to_numpy(), how.seed))].with_columns(number)


def _missing(publication: Publication, listed: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `listed` whose shard is missing in some subset, with their position in it as `place`."""
    names = {
        publication.out.relative(file.path)
        for subset in publication.subsets
        for file in publication.out.join(subset).files()
    }
    lacking = [number for number in listed["number"].unique() if not publication.names([number]) <= names]
    placed = listed.with_columns(pl.int_range(pl.len()).over("number").alias("place"))
    return placed.filter(pl.col("number").is_in(lacking))


def _needed(columns: Mapping[str, tuple[str, pa.Field]]) -> Columns:
    """Return the columns that are read to write shards: the published ones, the image and its digest."""
    tables = {name: table for name, (table, _) in columns.items() if table}
    fields = {name: field for name, (_, field) in columns.items()}
    return Columns([*columns, SHA256, ENCODED], {**tables, SHA256: CONTENTS}, fields)


def _blocks(rows: pl.DataFrame, missing: pl.DataFrame) -> Iterator[pa.Table]:
    """Yield one block per task: up to 16 whole shards, so that the stage tables are not read again for each shard."""
    shards = missing["number"].unique().sort()
    at_once = min(16, -(-len(shards) // 64))
    placed = rows.join(missing, on="id", how="inner", maintain_order="left")
    for start in range(0, len(shards), at_once):
        block = placed.filter(pl.col("number").is_in(shards[start : start + at_once].implode()))
        yield block.to_arrow(compat_level=pl.CompatLevel.oldest())


def _prompts(run: Run) -> dict[str, tuple[str, ...]]:
    """Return the prompts of each caption: those of the recipe's stage, else the default ones."""
    prompts = {use: read_prompts(use) for use in USES}
    for entry in run.recipe.get("stages") or []:
        use = entry["stage"].removesuffix("_caption")
        if use in USES and "prompts" in entry:
            prompts[use] = tuple(entry["prompts"])
    return prompts


def _sum_up(
    publication: Publication,
    where: str,
    listed: pl.DataFrame,
    stale: int,
    job: JobDone | None,
    written: int,
) -> Published:
    left_out, wanted = publication.left_out(), publication.names(listed["number"].unique())
    sizes = _sizes(publication)
    size = sum(sizes[name] for name in wanted)
    return Published(where, listed.height - len(left_out), len(wanted), size, written, left_out, stale, job)


def _sizes(publication: Publication) -> dict[str, int]:
    """Return the length of each file of the subsets in bytes, by its path in the publication."""
    files = [file for subset in publication.subsets for file in publication.out.join(subset).files()]
    return {publication.out.relative(file.path): file.size for file in files}


def _decoded(recipe: Recipe) -> bool:
    """Return whether a stage has decoded every kept image: a row whose image it cannot decode is an error, not kept.

    `portable` does not count: earlier versions sent images to a server without decoding them.
    """
    return any(IMAGE in step.stage.reads for step in recipe.steps)


def _schemas(fields: Mapping[str, pa.Field], subsets: Mapping[str, Sequence[str]]) -> dict[str, pa.Schema]:
    return {subset: shard_schema(fields, uses, alone=TOGETHER not in subsets) for subset, uses in subsets.items()}


def _docs(schemas: Mapping[str, pa.Schema]) -> dict[str, str]:
    """Return the description of each column of the shards."""
    return {f.name: (f.metadata or {}).get(b"doc", b"").decode() for schema in schemas.values() for f in schema}
