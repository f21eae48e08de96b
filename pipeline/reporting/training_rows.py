"""What a model would be trained on, row by row: annotations, published shards, records, or the kept images of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from core.errors import BadSampleError, UserError
from core.parquet import BAD_PARQUET, Parquet
from filters.overlap.rows import rows_of
from manifests.indexing import refuse_unfinished
from manifests.record_files import are_records, read_records, record_files
from manifests.run import RECIPE, Run, open_run
from manifests.storage import Folder
from model.training.data.forms import media_of, stream_turns_of, turns_of
from model.training.data.media_root import MediaRoot
from pipeline.reporting.image_bytes import read_images

_ANNOTATIONS = (".json", ".jsonl", ".ndjson")
_ROWS = 16  # rows of a shard at once
_IMAGES = 65_536  # images of a run whose texts are in memory


@dataclass(frozen=True)
class TrainingRow:
    """One row.

    Attributes:
        id: Its id: that of the row, or file and position.
        names: What else it is called: the paths of its media, its URL.
        texts: Its turns in their order, or its captions.
        images: Its encoded images.
        films: Number of its films, which are not read.
        faults: Why it, or an image of it, cannot be read.
    """

    id: str
    names: Sequence[str] = ()
    texts: Sequence[str] = ()
    images: Sequence[bytes] = ()
    films: int = 0
    faults: Sequence[str] = ()


def training_rows(location: str, media: str | None = None, roots: Sequence[str] = ()) -> Iterator[TrainingRow]:
    """Return an iterator of the rows of annotations (a file), of records, of shards or of a run (folders or URLs).

    Args:
        location: A .json or .jsonl file, what `vl3syn import` wrote, a dataset that `publish` wrote, or a run.
        media: The folder that paths in annotations are relative to; default the file's own folder.
        roots: Further folders that media may lie below.

    Raises:
        UserError: It is nothing of these, or cannot be read.
    """
    if are_records(location):
        return _recorded(location, media, roots)
    if location.lower().endswith(_ANNOTATIONS):
        return _annotated(location, MediaRoot(media or os.path.dirname(os.path.abspath(location)), roots))
    if media or roots:
        raise UserError(f"{location}: only annotations have media elsewhere: leave --media and --root out")
    folder = Folder.at(location)
    if folder.exists(RECIPE):
        run = open_run(location)
        refuse_unfinished(run)
        return _of_run(run)
    names = [folder.relative(info.path) for info in folder.files(recursive=True)]
    shards = [name for name in names if os.path.basename(name).startswith("shard-") and name.endswith(".parquet")]
    if not shards:
        tars = any(os.path.basename(name).startswith("shard-") and name.endswith(".tar") for name in names)
        reason = "its shards are tars, which are not read here: publish as parquet" if tars else "no run and no shards"
        raise UserError(f"{location}: {reason}; give a run, what publish has written, or annotations (.json, .jsonl)")
    return _of_shards(folder, location.rstrip("/"), shards)


def _annotated(path: str, media: MediaRoot) -> Iterator[TrainingRow]:
    name = os.path.basename(path)
    for number, entry in rows_of(path):
        where = f"{name}:{number}"
        if isinstance(entry, BadSampleError):
            yield TrainingRow(where, faults=(f"{where}: {entry}",))
        else:
            yield _annotated_row(entry, where, media)


def _recorded(path: str, media: str | None, roots: Sequence[str]) -> Iterator[TrainingRow]:
    folder = record_files(path)[0].parent
    places = {"media": MediaRoot(media or folder, roots), "records": MediaRoot(folder)}
    for record in read_records(path):
        names = [record.source.original_id, record.source.url, *(medium.path for medium in record.media)]
        stills = [medium for medium in record.media if medium.type == "image"]
        images, faults = _images([(places[still.root], still.path) for still in stills], record.id)
        yield TrainingRow(
            record.id,
            tuple(filter(None, names)),
            tuple(text for turn in record.turns if (text := turn.text)),
            images,
            len(record.media) - len(stills),
            faults,
        )


def _images(named: Sequence[tuple[MediaRoot, Any]], where: str) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return the bytes of images, and why those that are missing are."""
    images, faults = [], []
    for root, path in named:
        try:
            images.append(Path(root.file(path)).read_bytes())
        except (BadSampleError, OSError) as error:
            faults.append(f"{where}: {error}")
    return tuple(images), tuple(faults)


def _annotated_row(entry: Mapping[str, Any], where: str, media: MediaRoot) -> TrainingRow:
    given = entry.get("id")
    id_ = f"{where} (id {given})" if isinstance(given, str | int) else where
    try:
        turns = stream_turns_of(entry) if entry.get("stream") else turns_of(entry)
        paths, films = media_of(entry, "image"), media_of(entry, "video")
    except BadSampleError as error:
        return TrainingRow(id_, faults=(f"{where}: {error}",))
    images, faults = _images([(media, path) for path in paths], where)
    texts = tuple(_texts(turns))
    others = (len(turns) if isinstance(turns, list) else 1) - len(texts)
    if others and not entry.get("stream"):  # a stream has turns of media alone
        faults = (*faults, f"{where}: {others} of its turns are no text")
    names = [str(name) for name in (given, *paths, *films) if isinstance(name, str | int)]
    return TrainingRow(id_, tuple(names), texts, images, len(films), faults)


def _texts(turns: object) -> Iterator[str]:
    for turn in turns if isinstance(turns, list) else []:
        text = turn.get("value", turn.get("content")) if isinstance(turn, Mapping) else None
        if isinstance(text, str):
            yield text


def _of_shards(folder: Folder, location: str, names: Sequence[str]) -> Iterator[TrainingRow]:
    for name in names:
        try:
            with folder.filesystem.open_input_file(f"{folder.path}/{name}") as file:
                parquet = Parquet(file)
                texts = [column for column in parquet.schema.names if _is_text(column)]
                if "image" not in parquet.schema.names:
                    raise BadSampleError("no column `image`: give what publish has written")
                columns = ["id", "image.bytes", "url", *texts]
                for batch in parquet.batches(columns, _ROWS):
                    yield from (_published(row, name, texts) for row in batch.to_pylist())
        except (BadSampleError, pa.ArrowException, *BAD_PARQUET) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{location}/{name}: cannot be read: copy it again ({reason})") from error


def _is_text(column: str) -> bool:
    return column.endswith(("caption", "conversations")) or column == "alt_text"


def _published(row: Mapping[str, Any], name: str, texts: Sequence[str]) -> TrainingRow:
    values: dict[str, None] = {}
    for text in texts:
        value = row.get(text)
        values |= dict.fromkeys(_texts(value) if isinstance(value, list) else [value] if value else [])
    image = (row["image"] or {}).get("bytes")
    faults = () if image else (f"{name}: id {row.get('id')}: no image",)
    url = (row["url"],) if row.get("url") else ()
    return TrainingRow(str(row.get("id")), url, tuple(values), (image,) if image else (), 0, faults)


def _of_run(run: Run) -> Iterator[TrainingRow]:
    texts = [name for name, type_ in run.manifest_schema.items() if _is_text(name) and type_ == pl.String]
    manifest = run.manifest(["status"]).filter(pl.col("status") == "kept").select("id").collect(engine="streaming")
    for start in range(0, manifest.height, _IMAGES):
        ids = manifest.slice(start, _IMAGES)
        rows = run.manifest(["key", "url", *texts], ids).collect(engine="streaming")
        stored = {row["id"]: row for row in rows.iter_rows(named=True)}
        for image in read_images(run, ids):
            row = stored[image.id]
            yield TrainingRow(
                f"{image.id}",
                tuple(row[name] for name in ("key", "url") if row[name]),
                tuple(row[text] for text in texts if row[text]),
                () if image.data is None else (image.data,),
                faults=() if image.data is not None else (f"{row['key']}: {image.error}",),
            )
