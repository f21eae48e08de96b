"""Read encoded images of a run where they lie: in its pool, or in the tars of downloaded images."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from pydantic import ValidationError

from core.errors import UserError
from core.settings import problem
from core.stages import ENCODED
from manifests.contents import LENGTH
from manifests.run import Run
from pipeline.execution.job_columns import Columns
from pipeline.execution.lookahead import started_ahead
from pipeline.execution.planner import downloaded_images, plan, pool_images, stored_table
from pipeline.execution.selection import Selection
from pipeline.pools.images import Failure, Group
from pipeline.pools.reader import Images
from pipeline.pools.registry import parse_pool
from pipeline.recipe import Recipe, Step
from pipeline.recipe_file import Resources
from pipeline.reporting.frame_strips import strips
from pipeline.stages.download.columns import DESCRIBED
from pipeline.stages.download.stage import Download

LONGEST = 64 << 20
"""Bytes of the longest image that pages read."""

_READERS = 16  # threads that wait for the disk or the network
_AHEAD = 16  # groups that are read before they are needed, at most 8 MiB each


@dataclass(frozen=True)
class ImageBytes:
    """One image as it is stored.

    Attributes:
        id: Its id.
        data: The encoded image; None if it cannot be read.
        error: Why it cannot be read, as one line; empty if it can.
    """

    id: int
    data: bytes | None
    error: str = ""


def read_images(run: Run, ids: pl.DataFrame, longest: int = LONGEST) -> Iterator[ImageBytes]:
    """Yield each image of a run, in the order in which they lie in the pool. Neighbours share one read.

    Of clips, a strip of stored frames is yielded.

    An image that is gone, has changed or was never read is yielded with the reason. So is every image, if the pool is
    gone. About 16 reads of at most 8 MiB are held in memory, or one image.

    Args:
        run: The run.
        ids: The images, column `id`, each once.
        longest: Longest image that is read, in bytes.

    Raises:
        UserError: The run has no image with such an id, or a part of a table is damaged.
    """
    _refuse_unknown(run, ids)
    pool = run.recipe.get("pool") or {}
    if "videos" in pool:
        yield from (ImageBytes(id_, None, "a film: its clips have frames, in the run of clips") for id_ in ids["id"])
        return
    if "clips" in pool:
        for id_, shown in strips(run, ids):
            yield ImageBytes(id_, shown) if isinstance(shown, bytes) else ImageBytes(id_, None, shown)
        return
    try:
        recipe = _images_of(run)
        reason = _reason_for_all(run, recipe)
        images = downloaded_images(run, recipe) if recipe.download and not reason else pool_images(recipe)
    except (UserError, OSError) as error:  # a folder that was moved, a store that does not answer
        reason = " ".join(str(error).split())
    except ValidationError as error:  # a stage `download` of another version
        reason = f"download: {problem(error)}"
    if reason:
        yield from (ImageBytes(id_, None, reason) for id_ in ids["id"])
        return
    errors = _errors(run, recipe, ids)
    yield from (ImageBytes(id_, None, error) for id_, error in errors.iter_rows())
    readable = ids.join(errors, on="id", how="anti")
    if readable.height:
        rows, reasons = _divide(_addresses(run, recipe, readable), longest)
        yield from reasons
        yield from _read(images, rows)


def _images_of(run: Run) -> Recipe:
    """Return what the run's recipe says of images: the pool and the stage `download`.

    The classes of other packages that it names are not imported: to look at a run must not run its code.

    Raises:
        UserError: The pool is of such a class, or not valid.
    """
    pool = run.recipe.get("pool") or {}
    if "kind" in pool:
        raise UserError(f"not shown: the pool is of the class {pool['kind']}, whose code is not run to show images")
    steps = [
        Step(stage=Download(images=entry.get("images")), rules=(), resources=Resources(), table=entry["table"])
        for entry in run.recipe.get("stages") or []
        if entry["stage"] == Download.name and "class" not in entry
    ]
    return Recipe(run.url, parse_pool(pool), tuple(steps))


def _reason_for_all(run: Run, recipe: Recipe) -> str:
    """Return why the run has no image yet; an empty text if it has some."""
    if not recipe.download:
        return "" if recipe.pool.has_images else "the pool has only the URL of this image"
    columns = stored_table(run, recipe.download.table).schema.names
    return "" if DESCRIBED["shard"] in columns else "not downloaded yet"


def _refuse_unknown(run: Run, ids: pl.DataFrame) -> None:
    known = run.index.scan(["id"]).filter(pl.col("id").is_in(ids["id"].implode())).collect(engine="streaming")
    unknown = ids.join(known, on="id", how="anti")
    if unknown.height:
        raise UserError(f"{run.url} has no image with the id {unknown['id'][0]}")


def _errors(run: Run, recipe: Recipe, ids: pl.DataFrame) -> pl.DataFrame:
    """Return columns `id` and `error` of the images that could not be indexed or downloaded."""
    tables = [run.index, *([stored_table(run, recipe.download.table)] if recipe.download else [])]
    wanted = pl.col("id").is_in(ids["id"].implode()) & pl.col("error").is_not_null()
    found = [table.scan(["id", "error"]).filter(wanted).collect(engine="streaming") for table in tables]
    return pl.concat(found).unique("id", keep="first")


def _addresses(run: Run, recipe: Recipe, ids: pl.DataFrame) -> pa.Table:
    """Return where the images are, in the order of the pool: `id`, `seen_bytes`, and the columns `IMAGE_ADDRESS`."""
    downloaded = recipe.download.table if recipe.download else ""
    columns = Columns(names=(ENCODED,), tables={}, fields={}, downloaded=downloaded)
    planned, inputs = plan(run, recipe, columns, Selection.all_of(ids))
    return inputs.complete(planned.rows())


def _divide(rows: pa.Table, longest: int) -> tuple[pa.Table, list[ImageBytes]]:
    """Return the rows to read, and the reasons of the others."""
    read, reasons = [], []
    for number, row in enumerate(rows.select(["id", "shard", "bytes"]).to_pylist()):
        id_, shard, length = row["id"], row["shard"], row["bytes"]
        if shard is None:
            reasons.append(ImageBytes(id_, None, "not downloaded yet"))
        elif (length or 0) > longest:
            reasons.append(ImageBytes(id_, None, f"not shown: {length:,} bytes are too many"))
        else:
            read.append(number)
    return rows.take(pa.array(read, pa.int64())), reasons


def _read(images: Images, rows: pa.Table) -> Iterator[ImageBytes]:
    ids, lengths = rows["id"].to_pylist(), rows["bytes"].to_pylist()
    seen = rows[LENGTH].to_pylist()

    def read(group: Group) -> list[tuple[int, bytes | Failure]]:
        return list(zip(group.rows, images.read(group), strict=True))

    with ThreadPoolExecutor(_READERS, "read") as readers:
        reading = (readers.submit(read, group) for group in images.groups(rows))
        for group in started_ahead(reading, _AHEAD):
            for row, data in group.result():
                before = lengths[row] if seen[row] is None else seen[row]
                yield _checked(ids[row], data, before)


def _checked(id_: int, data: bytes | Failure, before: int | None) -> ImageBytes:
    """Refuse an image of another length than when it was first read: it may be another image."""
    if isinstance(data, Failure):
        return ImageBytes(id_, None, data.error)
    if before is not None and len(data) != before:
        return ImageBytes(id_, None, f"changed: it has {len(data):,} bytes now, and had {before:,}")
    return ImageBytes(id_, data)
