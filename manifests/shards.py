"""Define and write published shards, which any Parquet reader opens.

A shard holds the original bytes of the images, so that no second JPEG encoding loses detail. It also holds the
captions, conversations in VideoLLaMA 3's training format, and every score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.control_tokens import as_words
from manifests.schemas import ID, column
from manifests.storage import Folder

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Hugging Face's type for images."""

CONVERSATIONS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
"""VideoLLaMA 3's format: turns `from` human or gpt; `<image>` in a value marks the position of the image."""

USES = ("short", "detailed")
"""Kinds of captions; their columns are `<use>_caption`."""

TOGETHER = "data"
"""Name of the subset with both captions."""

OCR = "ocr"
"""Name of the subset of images with text: the short caption, then the texts with their boxes."""

SUBSETS = (*USES, OCR)
"""Subsets with one caption, named after it."""

_OCR_CAPTION = column("ocr_caption", pa.string(), "The short caption, then each text in the image with its box")

FORMATS = ("parquet", "webdataset")

LISTS, LEFT_OUT = ".publication", "left-out-"
"""Folder of the lists that are fixed before the first shard is written; prefix of its files of images left out."""

RENAMED = {"shard": "source_shard", "key": "source_key"}
"""Columns of the index that are renamed in published shards, where `shard` and `key` would be ambiguous."""

GROUP, GROUP_BYTES = 256, 256 << 20
"""Largest number of rows and of image bytes in a row group, which a reader holds in memory at once."""

_VALUES_AT_ONCE = 16
"""After so many values the size of a page is compared with its limit, 1 MiB. By Arrow's default of 1,024, all images of
a row group are one page, which is in memory twice while it is written."""

_MARKS_AT_FIRST = re.compile(r"\A(?:\s*<image>\s*)+")
_PIXELS = "image.bytes"
_ENDINGS = {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}


def file_name(id_: int, format_: str | None) -> str:
    """Return the name of an image inside a shard: its id, and an extension for its format."""
    ending = (format_ or "bin").lower()
    return f"{id_}.{_ENDINGS.get(ending, ending)}"


def conversations(questions: pa.Array | pa.ChunkedArray, captions: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Build conversations of two turns: a question about the image and its caption; null where there is no caption.

    The only control token is the `<image>` at the start. Control tokens in the texts are spelled as words, and an
    `<image>` at the start of a question is removed.

    Args:
        questions: Texts, (rows).
        captions: Texts, (rows).

    Returns:
        An array of type `CONVERSATIONS`, (rows).
    """
    rows = len(captions)
    human = [None if q is None else f"<image>\n{as_words(_MARKS_AT_FIRST.sub('', q))}" for q in questions.to_pylist()]
    answers = pa.array([None if c is None else as_words(c) for c in captions.to_pylist()], pa.string())
    values = pa.concat_arrays([pa.array(human, pa.string()), answers])
    speakers = pa.array(["human"] * rows + ["gpt"] * rows, pa.string())
    turns = pa.StructArray.from_arrays([speakers, values], fields=list(CONVERSATIONS.value_type.fields))
    order = np.arange(2 * rows).reshape(2, rows).T.ravel()
    offsets = pa.array(np.arange(0, 2 * rows + 1, 2), pa.int32())
    return pa.ListArray.from_arrays(offsets, turns.take(pa.array(order)), type=CONVERSATIONS, mask=answers.is_null())


def shard_name(subset: str, number: int, format_: str) -> str:
    """Return the path of a shard, relative to the dataset."""
    return f"{subset}/shard-{number:05d}.{'tar' if format_ == 'webdataset' else 'parquet'}"


def shard_schema(fields: Mapping[str, pa.Field], uses: Sequence[str], alone: bool) -> pa.Schema:
    """Return the columns of a shard: training data first, then the source, then the scores.

    Args:
        fields: The columns of the index and the stages, by name.
        uses: Kinds of captions in the shard.
        alone: Whether it is the subset of one caption, whose column is then named `caption`.
    """
    used = {OCR: _OCR_CAPTION} | {use: fields[f"{use}_caption"] for use in uses if use != OCR}
    captions = [used[use].with_name("caption" if alone else f"{use}_caption") for use in uses]
    turns = [
        column(
            conversation_column(use, uses),
            CONVERSATIONS,
            f"Conversation to train on, with the {use} caption as answer",
        )
        for use in reversed(uses)
    ]
    image = column("image", IMAGE, "The original encoded bytes of the image, and a file name made from id and format")
    others = {f"{use}_caption" for use in USES}
    rest = [field.with_name(RENAMED.get(name, name)) for name, field in fields.items() if name not in others]
    return pa.schema([ID, image, *captions, *turns, *rest])


def conversation_column(use: str, uses: Sequence[str]) -> str:
    """Return a caption's conversations column: `conversations` for the last of `uses`, else `<use>_conversations`."""
    return "conversations" if use == uses[-1] else f"{use}_conversations"


def group_ends(lengths: Sequence[int]) -> list[int]:
    """Divide a shard into row groups of at most `GROUP` rows and `GROUP_BYTES` of images, or of a single larger image.

    Args:
        lengths: Lengths of the images in bytes, in the order of the shard.

    Returns:
        For each group, the index of the row after its last row; ascending.
    """
    ends: list[int] = []
    rows = size = 0
    for row, length in enumerate(lengths):
        if rows and (rows == GROUP or size + length > GROUP_BYTES):
            ends.append(row)
            rows = size = 0
        rows, size = rows + 1, size + length
    return [*ends, len(lengths)] if lengths else []


def write_parquet(folder: Folder, name: str, schema: pa.Schema, groups: Iterator[pa.Table]) -> None:
    """Write a Parquet shard atomically, with one row group per table.

    Args:
        folder: The dataset's folder.
        name: From `shard_name`.
        schema: From `shard_schema`.
        groups: Tables of `schema`.
    """
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    texts = [leaf for leaf in leaves if leaf != _PIXELS]
    subset, _, base = name.rpartition("/")
    with (
        folder.join(subset).writing(base) as file,
        pq.ParquetWriter(
            file,
            schema.with_metadata({"huggingface": _features(schema)}),
            compression={leaf: "none" if leaf == _PIXELS else "zstd" for leaf in leaves},
            use_dictionary=texts,
            write_statistics=texts,
            write_page_checksum=True,
            write_batch_size=_VALUES_AT_ONCE,
        ) as writer,
    ):
        for table in groups:
            writer.write_table(table, row_group_size=max(1, table.num_rows))


def _leaves(path: str, type_: pa.DataType) -> Iterator[str]:
    """Yield Parquet's names for the values of a column."""
    if pa.types.is_struct(type_):
        for field in type_.fields:
            yield from _leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_list(type_):
        yield from _leaves(f"{path}.list.element", type_.value_type)
    else:
        yield path


def _features(schema: pa.Schema) -> str:
    """Return metadata for `datasets` that declares the image columns. It infers the other columns' types itself."""
    images: dict[str, Any] = {field.name: {"_type": "Image"} for field in schema if field.type == IMAGE}
    return json.dumps({"info": {"features": images}})
