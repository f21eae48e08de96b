"""The code that runs inside Ray's workers when a run is published: write images and facts into shards."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioners.prompts import choose, prompt_hash, read_prompts
from core.errors import UserError
from core.image_header import BadImageError, check_length
from core.images import check_decodes
from manifests.contents import SHA256, content_rows
from manifests.shards import (
    IMAGE,
    LEFT_OUT,
    LISTS,
    RENAMED,
    TOGETHER,
    conversation_column,
    conversations,
    file_name,
    group_ends,
    shard_name,
    shard_schema,
    write_parquet,
)
from manifests.storage import Folder
from manifests.tar_shards import write_tar
from pipeline.execution.inputs import Inputs
from pipeline.execution.part_writer import Store
from pipeline.execution.ray_job import map_blocks
from pipeline.execution.receipts import receipt, reported
from pipeline.pools.images import Failure, Group

_READERS = 16  # threads that wait for the disk or the network

Content = tuple[int, bytes]
"""Length of an image in bytes, and its SHA-256."""


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards in Ray tasks.

    Attributes:
        out: The folder of the dataset.
        format: `parquet` or `webdataset`.
        inputs: Adds columns and images to a block of ids.
        fields: The columns of the run that are published, by name.
        prompts: The prompts of each caption, by use (`short`, `detailed`).
        subsets: The captions of each subset.
        contents: Stores lengths and digests of images that were not read before.
        decoded: Whether a stage has decoded every image. If not, images are decoded here as a check.
        first_form: Whether tars have the form of an earlier version, see `write_tar`.
    """

    out: Folder
    format: str
    inputs: Inputs
    fields: Mapping[str, pa.Field]
    prompts: Mapping[str, Sequence[str]]
    subsets: Mapping[str, Sequence[str]]
    contents: Store
    decoded: bool
    first_form: bool = False

    def job(self, dataset: Any, alone: bool = False) -> Any:
        """Return the Ray Data job; `alone` changes nothing, since each block has a task of its own."""
        return map_blocks(dataset, reported, fn_kwargs={"call": self.write}, num_cpus=1)

    def write(self, block: pa.Table) -> pa.Table:
        """Write the missing shards of a block; return a receipt.

        Raises:
            UserError: The prompt of a caption is unknown, or an image cannot be read now.
        """
        begin = time.time()
        complete = self.inputs.complete(block)
        for use in {use for uses in self.subsets.values() for use in uses}:
            self._questions(complete, use)  # raises before the first image is read
        write = write_parquet if self.format == "parquet" else partial(write_tar, first_form=self.first_form)
        first: dict[int, Content] = {}
        for number in pc.unique(complete["number"]).sort().to_pylist():
            rows = complete.filter(pc.equal(complete["number"], number)).sort_by("place")
            names = {subset: shard_name(subset, number, self.format) for subset in self.subsets}
            lacking = {subset: name for subset, name in names.items() if not self.out.exists(name)}
            if len(lacking) == len(names):  # images that were left out of a deleted shard may be readable now
                self.out.join(LISTS).delete(_left_out_name(number))
            for subset, name in lacking.items():
                uses = self.subsets[subset]
                write(self.out, name, self._schema(uses), self._groups(rows, uses, number, first))
        self._write_down(complete, first)
        return receipt(complete.num_rows, 0, begin)

    def _write_down(self, rows: pa.Table, first: Mapping[int, Content]) -> None:
        """Store lengths and digests of images that were not read before, as in runs of an earlier version."""
        unseen = rows.filter(pc.is_null(rows[SHA256]))["id"].to_pylist()
        if new := content_rows(unseen, [first.get(id_) for id_ in unseen]) if first and unseen else None:
            self.contents.table.append(new, self.contents.writer, self.contents.provenance)

    def _schema(self, uses: Sequence[str]) -> pa.Schema:
        return shard_schema(self.fields, uses, alone=TOGETHER not in self.subsets).remove_metadata()

    def _groups(
        self, rows: pa.Table, uses: Sequence[str], number: int, first: dict[int, Content]
    ) -> Iterator[pa.Table]:
        """Yield the row groups of a shard while the images of the next group are read; then store what is left out.

        Adds the length in bytes and the SHA-256 of each published image to `first`, by id.
        """
        left_out: dict[str, str] = {}
        ends = group_ends(rows["bytes"].fill_null(0).to_pylist())
        chunks = [rows.slice(start, end - start) for start, end in pairwise([0, *ends])]
        with ThreadPoolExecutor(_READERS) as readers:
            reading: deque[list[Future[list[bytes | Failure]]]] = deque()
            for position, chunk in enumerate(chunks):
                for ahead in chunks[position + len(reading) : position + 2]:
                    reading.append(self._start_reading(ahead, readers))
                read = [image for task in reading.popleft() for image in task.result()]
                images = _in_order(chunk, read)
                digests = [None if isinstance(image, Failure) else hashlib.sha256(image).digest() for image in images]
                faults = _faults(chunk, images, digests, self.decoded)
                ids = chunk["id"].to_pylist()
                left_out |= {str(ids[row]): reason for row, reason in faults.items()}
                good = {row: digest for row, digest in enumerate(digests) if digest and row not in faults}
                first |= {ids[row]: (len(images[row]), digest) for row, digest in good.items()}
                if good:  # `datasets` cannot open a Parquet file with an empty row group
                    yield self._group(chunk, images, good, uses)
        if left_out:  # written before the shard, so that no shard lacks its file of left-out images
            lists, name = self.out.join(LISTS), _left_out_name(number)
            of_other_subsets = json.loads(lists.read(name)) if lists.exists(name) else {}
            lists.write(name, json.dumps({**of_other_subsets, **left_out}, indent=1).encode())

    def _start_reading(self, chunk: pa.Table, readers: ThreadPoolExecutor) -> list[Future[list[bytes | Failure]]]:
        """Start reading the images of a chunk, in the order of the pool."""
        images = self.inputs.images
        assert images is not None
        groups = list(images.groups(chunk.take(_pool_order(chunk))))
        size = -(-len(groups) // _READERS)

        def read(some: Sequence[Group]) -> list[bytes | Failure]:
            return [image for group in some for image in images.read(group)]

        return [readers.submit(read, groups[start : start + size]) for start in range(0, len(groups), max(size, 1))]

    def _group(
        self, chunk: pa.Table, images: Sequence[bytes | Failure], good: Mapping[int, bytes], uses: Sequence[str]
    ) -> pa.Table:
        """Return a row group: the rows `good` of a chunk (row number: digest) with their images."""
        kept = chunk.take(pa.array(list(good), pa.int64()))
        ids, formats = kept["id"].to_pylist(), kept["format"].to_pylist()
        names = [file_name(id_, format_) for id_, format_ in zip(ids, formats, strict=True)]
        encoded = pa.array([images[row] for row in good], pa.binary())
        columns: dict[str, Any] = {RENAMED.get(name, name): kept[name] for name in self.fields} | {
            "id": kept["id"],
            "image": pa.StructArray.from_arrays([encoded, pa.array(names, pa.string())], fields=list(IMAGE.fields)),
            "sha256": pa.array([digest.hex() for digest in good.values()], pa.string()),
        }
        for use in uses:
            caption = columns["caption"] = kept[f"{use}_caption"]
            columns[conversation_column(use, uses)] = conversations(self._questions(kept, use), caption)
        schema = self._schema(uses)
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _questions(self, rows: pa.Table, use: str) -> pa.Array:
        """Return the question for each caption: the prompt whose hash is stored, else one chosen by the id."""
        prompts = self.prompts[use]
        by_hash = {prompt_hash(prompt): prompt for prompt in (*read_prompts(use), *prompts)}
        ids = rows["id"].to_pylist()
        hashes = rows[f"{use}_prompt"].to_pylist() if f"{use}_prompt" in rows.column_names else [None] * len(ids)
        if unknown := [h for h in hashes if h is not None and h not in by_hash]:
            raise UserError(
                f"publish: captions of {use}_caption answer a prompt with hash {unknown[0]}, which "
                "the run's recipe.yaml does not have: its prompts are not those of the recipe any more: put them back"
            )
        questions = [choose(prompts, id_) if h is None else by_hash[h] for h, id_ in zip(hashes, ids, strict=True)]
        return pa.array(questions, pa.string())


def _left_out_name(number: int) -> str:
    return f"{LEFT_OUT}{number:05d}.json"


def _pool_order(chunk: pa.Table) -> pa.Array:
    return pc.sort_indices(chunk, [("shard", "ascending"), ("offset", "ascending"), ("key", "ascending")])


def _in_order(chunk: pa.Table, read: Sequence[bytes | Failure]) -> list[bytes | Failure]:
    """Reorder images that were read in the order of the pool to the order of the chunk."""
    order = _pool_order(chunk).to_pylist()
    return [image for _, image in sorted(zip(order, read, strict=True), key=lambda pair: pair[0])]


def _faults(
    chunk: pa.Table, images: Sequence[bytes | Failure], digests: Sequence[bytes | None], decoded: bool
) -> dict[int, str]:
    """Return the rows that cannot be published, with the reason: the image has changed, is deleted or unusable.

    Args:
        chunk: Rows of the shard.
        images: The image of each row, or a Failure.
        digests: SHA-256 of each image; None for a Failure.
        decoded: Whether a stage has decoded every image.

    Raises:
        UserError: An image cannot be read now, but may be readable later.
    """
    faults = {}
    for row, (image, digest, *known) in enumerate(zip(images, digests, *_known_of(chunk), strict=True)):
        if isinstance(image, Failure):
            if image.deleted:
                faults[row] = "missing: the pool has deleted the image since it was indexed"
                continue
            if image.retry:
                raise UserError(f"publish: an image is {image.error}; what is written stays, run again to go on")
            faults[row] = image.error
        elif digest is not None and not _is_same(len(image), digest, *known):
            faults[row] = "changed: the pool has other bytes there than those that were judged; index it again"
        elif bad := _unusable(image, decoded):
            faults[row] = bad
    return faults


def _unusable(image: bytes, decoded: bool) -> str | None:
    try:
        check_length(len(image))
        if not decoded:
            check_decodes(image)
    except BadImageError as error:
        return str(error)
    except MemoryError:
        return "too large: the memory does not hold it decoded"
    return None


def _known_of(chunk: pa.Table) -> list[list[Any]]:
    """Return what is stored about each image, as four lists whose values may be None.

    They are the SHA-256 when it was first read, the length in the index, the SHA-256 from the source, and the hash by
    the stage `hashes` (the first 8 bytes of a SHA-256, as a signed integer).
    """
    halves = chunk["content_hash"].to_pylist() if "content_hash" in chunk.column_names else [None] * chunk.num_rows
    return [chunk[SHA256].to_pylist(), chunk["bytes"].to_pylist(), chunk["sha256"].to_pylist(), halves]


def _is_same(
    length: int, digest: bytes, seen: bytes | None, indexed: int | None, from_source: str | None, half: int | None
) -> bool:
    if seen is None and indexed is not None and length != indexed:
        return False
    return (
        seen in (None, digest)
        and (not from_source or from_source.lower() == digest.hex())
        and half in (None, _half(digest))
    )


def _half(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big", signed=True)
