"""Plan a job: the rows that a stage must compute, and where its workers find the columns that it reads.

The driver sends ids and columns of numbers. Texts, lists, embeddings and images do not pass through it. For these it
sends which part of the table holds the row, and the workers read the part.

Tables are read part by part, and of each row some bytes are kept: 4 for its place in the order, mostly 2 for each table
that workers read, and the numbers. The workers also read numbers where a row would take more than 16 bytes.

Rows that are shuffled afterwards, as by `publish`, are an exception, as each block has rows of every part. Small tables
are read once, by the driver. Of large ones it sends nothing, and the workers of each block read every part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from manifests.contents import CONTENTS, LENGTH, SHA256, contents_table
from manifests.run import Run, stage_folder
from manifests.table_walk import walk
from manifests.tables import Table
from pipeline.execution.inputs import POOL_ADDRESS, Inputs, Source
from pipeline.execution.job_columns import Columns
from pipeline.execution.plan import Numbers, PartNumbers, Plan, Positions, bytes_of, read_numbers, read_part_numbers
from pipeline.execution.seen import DIGEST, SeenLengths
from pipeline.execution.selection import Selection
from pipeline.pools.images import IMAGE_ADDRESS
from pipeline.pools.reader import Images
from pipeline.pools.registry import pool_of
from pipeline.recipe import Recipe, via_driver
from pipeline.stages.download.columns import DESCRIBED
from pipeline.stages.download.stage import Download
from pipeline.stages.download.storage import images_folder, refuse_elsewhere

_SMALL = 64 << 20
"""Bytes of all files of the tables that the driver reads for shuffled rows: some 150,000 images with two captions."""

_MOST_BYTES, _ORDER, _PART, _GROUPED = 16, 4, 2, 6
"""Bytes of a row of a plan: at most, unless workers read very many tables; its place in the order; the number of its
part, in a table of less than 65,535 parts; its group, and its place in an order that is being sorted by groups."""

_ByTable: TypeAlias = dict[str, dict[str, str]]
"""Columns by table ("" is the index): the name of each column, and its name in the table."""


def unstored(table: Table, alive: pl.DataFrame) -> Selection:
    """Return the rows of `alive` (column `id`, sorted) that have no facts in `table`, or can be retried."""
    rows = Selection.all_of(alive)
    for _, stored in walk(table, ["id", "retry"])[1]:
        final = stored.filter(pc.equal(stored["retry"], False))
        rows.chosen[rows.positions(final["id"])[1]] = False
    return rows


def plan(run: Run, recipe: Recipe, columns: Columns, rows: Selection, grouped: bool = False) -> tuple[Plan, Inputs]:
    """Return the planned rows of a job, and the inputs that add the columns that the driver does not send.

    The rows are sorted by id. If workers read tables, they are in the order of the images, so that neighbours are read
    together.

    Args:
        run: The run.
        recipe: Its recipe.
        columns: The columns that the job reads.
        rows: The rows.
        grouped: Whether the rows are sorted by their groups afterwards, which takes memory too.
    """
    return _plan(run, recipe, columns, rows, *_divide(columns, _MOST_BYTES - (_GROUPED if grouped else 0)))


def plan_shuffled(run: Run, recipe: Recipe, columns: Columns, ids: pl.DataFrame) -> tuple[pl.DataFrame, Inputs]:
    """Return the rows (column `id`) of a job whose blocks have rows of every part, as `plan` does.

    Small tables are read once, by the driver. Of large ones it sends nothing, and the workers of each block read them.
    """
    sent, read = _small(run, _divide(columns, 0)[1])
    planned, inputs = _plan(run, recipe, columns, Selection.all_of(ids), {}, read)
    rows = planned.frame()
    for table, names in sent.items():
        stored = stored_table(run, table).scan(["id", *dict.fromkeys(names.values())])  # two names may be of one column
        renamed = [pl.col(theirs).alias(ours) for ours, theirs in names.items()]
        of_table = stored.select("id", *renamed).collect(engine="streaming")
        rows = rows.join(of_table, on="id", how="left", maintain_order="left")
    return rows, inputs


def _plan(
    run: Run, recipe: Recipe, columns: Columns, rows: Selection, sent: _ByTable, read: _ByTable
) -> tuple[Plan, Inputs]:
    order = _in_order(run, columns, rows) if read else np.flatnonzero(rows.chosen).astype(_position(rows))
    planned: dict[str, Numbers | PartNumbers] = {}
    for table, names in sent.items():
        planned |= read_numbers(stored_table(run, table), names, rows)
    sources = []
    for number, (table, names) in enumerate(read.items()):
        sources.append(_source(stored_table(run, table), names, f"part:{number}", rows, planned))
    seen = _seen_lengths(run, columns, rows, planned) if columns.has_images else None
    pool = pool_images(recipe) if columns.has_media or columns.from_pool else None
    images = downloaded_images(run, recipe) if columns.downloaded else pool
    inputs = Inputs(sources=sources, from_pool=columns.from_pool, pool=pool, images=images)
    return Plan(rows.ids, order, planned, seen), inputs


def _source(
    table: Table, names: Mapping[str, str], column: str, rows: Selection, planned: dict[str, Numbers | PartNumbers]
) -> Source:
    """Add the number of each row's part to `planned`, as a column of this name; return the source that reads it."""
    planned[column], parts = read_part_numbers(table, rows)
    return Source(table=table, names=parts, columns=names, part_column=column)


def _seen_lengths(
    run: Run, columns: Columns, rows: Selection, planned: dict[str, Numbers | PartNumbers]
) -> SeenLengths:
    contents, digest = contents_table(run.folder), None
    names = {LENGTH: LENGTH}
    if columns.downloaded:
        names[SHA256] = SHA256
        table = stored_table(run, columns.downloaded)
        digest = _source(table, {DIGEST: DESCRIBED["sha256"]}, "part:digest", rows, planned)
    return SeenLengths(_source(contents, names, "part:contents", rows, planned), digest)


def pool_images(recipe: Recipe) -> Images:
    """Return the images of the recipe's pool, without reading it."""
    return Images(recipe.pool, recipe.pool.root())


def downloaded_images(run: Run, recipe: Recipe) -> Images:
    """Return the images that the recipe's stage `download` has stored.

    Raises:
        UserError: Their folder has none of them.
    """
    step = recipe.download
    assert step is not None
    assert isinstance(step.stage, Download)
    folder = images_folder(step.stage.images, run.folder)
    refuse_elsewhere(folder, stored_table(run, step.table))
    return Images(pool_of(tars=f"{folder.path}/*.tar"), folder)


def _divide(columns: Columns, most: int) -> tuple[_ByTable, _ByTable]:
    """Return the columns that the driver sends, and those that the workers read.

    The driver sends numbers of tables that no worker has to read, as long as a row takes at most so many bytes; with 0,
    nothing.
    """
    sent: _ByTable = {}
    read: _ByTable = {}
    for table, names in columns.by_table.items():
        sends = most > 0 and all(via_driver(columns.fields[name]) for name in names)
        (sent if sends else read)[table] = {name: columns.stored.get(name, name) for name in names}
    if columns.has_media:
        for name in IMAGE_ADDRESS:
            described = DESCRIBED.get(name) if columns.downloaded else None
            read.setdefault(columns.downloaded if described else "", {})[name] = described or name
    if columns.from_pool:
        read.setdefault("", {}).update(POOL_ADDRESS)
    widths = {table: sum(bytes_of(columns.fields[name].type) for name in names) for table, names in sent.items()}
    for table in sorted(widths, key=lambda name: (name not in read, -widths[name])):
        parts = len(read) + (2 if columns.downloaded else 1) * columns.has_media
        if table in read or _ORDER + _PART * parts + sum(widths[name] for name in sent) > most:
            read[table] = {**read.get(table, {}), **sent.pop(table)}
    return sent, read


def _small(run: Run, columns: _ByTable) -> tuple[_ByTable, _ByTable]:
    """Divide tables with their columns into those that the driver reads whole, and those that the workers read."""
    tables = {name: stored_table(run, name) for name in columns}
    if sum(file.size for table in tables.values() for file in table.list_files().files) > _SMALL:
        return {}, dict(columns)
    sent = {
        name: names
        for name, names in columns.items()
        if all(_is_plain(tables[name].schema.field(stored).type) for stored in names.values())
    }
    return sent, {name: names for name, names in columns.items() if name not in sent}


def _is_plain(type_: pa.DataType) -> bool:
    """Return whether values keep their type on their way through polars, except that texts and bytes become large."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_binary)
    return any(is_kind(type_) for is_kind in kinds)


def _in_order(run: Run, columns: Columns, rows: Selection) -> Positions:
    """Return the positions of the rows as the images lie in the pool, or in the tars of downloaded images."""
    left, count = rows.chosen.copy(), 0
    order = np.empty(rows.height, _position(rows))
    for ids in _ids_in_order(run, columns):
        positions = rows.positions(ids)[1]
        positions = positions[left[positions]]
        left[positions] = False
        order[count : count + len(positions)] = positions
        count += len(positions)
    nowhere = np.flatnonzero(left).astype(order.dtype)
    return np.concatenate([nowhere, order[:count]]) if len(nowhere) else order


def _ids_in_order(run: Run, columns: Columns) -> Iterator[pa.ChunkedArray]:
    if not (columns.has_images and columns.downloaded):
        yield from (part["id"] for _, part in walk(run.index, ["id"])[1])
        return
    offset = DESCRIBED["offset"]
    for _, part in walk(stored_table(run, columns.downloaded), ["id", offset])[1]:
        yield part["id"].take(np.argsort(part[offset].fill_null(-1).to_numpy(), kind="stable"))


def _position(rows: Selection) -> type[np.unsignedinteger]:
    return np.uint32 if len(rows.ids) < 1 << 32 else np.uint64


def stored_table(run: Run, name: str) -> Table:
    """Return the table with this name; "" is the index."""
    if name == CONTENTS:
        return contents_table(run.folder)
    return Table.stored(stage_folder(run.folder, name)) if name else run.index
