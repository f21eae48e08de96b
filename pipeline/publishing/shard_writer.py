"""The code that runs in workers when a run is published: write images and facts into shards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioners.prompts import choose, prompt_hash, read_prompts
from core.errors import UserError
from manifests.contents import SHA256, content_rows
from manifests.removals import Removals
from manifests.shards import (
    IMAGE,
    LEFT_OUT,
    OCR,
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
from manifests.tar_shards import write_tar
from pipeline.execution.inputs import Inputs
from pipeline.execution.lookahead import started_ahead
from pipeline.execution.part_writer import Store
from pipeline.execution.ray_job import map_blocks
from pipeline.execution.receipts import receipt, reported
from pipeline.pools.images import Failure, Group
from pipeline.publishing.image_checks import ReadImage, faults_of, hashed
from pipeline.publishing.ocr_captions import ocr_captions
from pipeline.publishing.ocr_rows import store_ocr_rows
from pipeline.publishing.publication import Publication
from pipeline.publishing.shard_job import NUMBER, POSITION

if TYPE_CHECKING:
    from ray.data import Dataset

_READERS = 16  # threads that wait for the disk or the network

Content = tuple[int, bytes]
"""Length of an image in bytes, and its SHA-256."""


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards in Ray tasks.

    Attributes:
        publication: The publication.
        inputs: Adds columns and images to a block of ids.
        fields: The columns of the run that are published, by name.
        prompts: The prompts of each caption, by use (`short`, `detailed`, `ocr`).
        contents: Stores lengths and digests of images that were not read before.
        decoded: Whether a stage has decoded every image. If not, images are decoded here as a check, and so are images
            without a stored digest, which may have changed since.
        earlier_form: Whether tars have the form of an earlier version, see `write_tar`.
        removals: What was removed on request, and is not written.
    """

    publication: Publication
    inputs: Inputs
    fields: Mapping[str, pa.Field]
    prompts: Mapping[str, Sequence[str]]
    contents: Store
    decoded: bool
    earlier_form: bool
    removals: Removals = field(default_factory=Removals)

    def job(self, dataset: Dataset, alone: bool = False) -> Dataset:
        """Return the Ray Data job; `alone` changes nothing, since each block has a task of its own."""
        return map_blocks(dataset, reported, fn_kwargs={"call": self.write}, num_cpus=1)

    def write(self, block: pa.Table) -> pa.Table:
        """Write the missing shards of a block; return a receipt.

        Raises:
            UserError: The prompt of a caption is unknown, or an image cannot be read now.
        """
        begin = time.time()
        rows = self.inputs.complete(block)
        if self.inputs.images is not self.inputs.pool:
            rows = _without_other_downloads(rows)
        if OCR in self.publication.subsets:
            rows = rows.append_column(_caption(OCR), ocr_captions(rows))
        for use in {use for uses in self.publication.subsets.values() for use in uses}:
            rows = rows.append_column(_question(use), self._questions(rows, use))  # raises before an image is read
        contents: dict[int, Content] = {}
        for number in pc.unique(rows[NUMBER]).sort().to_pylist():
            rows_of_shard = rows.filter(pc.equal(rows[NUMBER], number)).sort_by(POSITION)
            contents |= self._write_number(number, rows_of_shard)
        self._store_contents(rows, contents)
        bytes_read = sum(length for length, _ in contents.values())
        return receipt(rows.num_rows, 0, begin, bytes_read=bytes_read)

    def _write_number(self, number: int, rows: pa.Table) -> dict[int, Content]:
        """Write the shards with a number that are missing; return the contents of their images, by id."""
        out, subsets = self.publication.out, self.publication.subsets
        names = {subset: shard_name(subset, number, self.publication.format) for subset in subsets}
        missing = {subset: name for subset, name in names.items() if not out.exists(name)}
        if len(missing) == len(names):  # images that were left out of a deleted shard may be readable now
            self.publication.lists.delete(_left_out_name(number))
        contents: dict[int, Content] = {}
        for subset, name in missing.items():
            of_subset = rows.filter(rows[_caption(OCR)].is_valid()) if subset == OCR else rows
            groups = self._row_groups(of_subset, subsets[subset], number, contents)
            schema = self._schema(subsets[subset])
            if self.publication.format == "parquet":
                write_parquet(out, name, schema, groups)
            else:
                write_tar(out, name, schema, groups, earlier_form=self.earlier_form)
        return contents

    def _store_contents(self, rows: pa.Table, contents: Mapping[int, Content]) -> None:
        """Store lengths and digests of images that were not read before, as in runs of an earlier version."""
        unseen = rows.filter(pc.is_null(rows[SHA256]))["id"].to_pylist()
        if contents and unseen:
            new = content_rows(unseen, [contents.get(id_) for id_ in unseen])
            self.contents.table.append(new, self.contents.writer, self.contents.provenance)

    def _schema(self, uses: Sequence[str]) -> pa.Schema:
        return shard_schema(self.fields, uses, alone=TOGETHER not in self.publication.subsets).remove_metadata()

    def _row_groups(
        self, rows: pa.Table, uses: Sequence[str], number: int, contents: dict[int, Content]
    ) -> Iterator[pa.Table]:
        """Yield the row groups of a shard; then store which images are left out.

        Adds the length in bytes and the SHA-256 of each published image to `contents`, by id.
        """
        rows = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(sorted(self.removals.ids), pa.int64()))))
        facts, start = self._facts(rows, uses), 0
        left_out: dict[str, str] = {}
        published: list[int] = []
        for chunk, read in self._read_ahead(rows):
            faults = faults_of(chunk, read, self.decoded, self.removals.sha256)
            ids = chunk["id"].to_pylist()
            left_out |= {str(ids[row]): reason for row, reason in faults.items()}
            good = {row: image for row, image in enumerate(read) if isinstance(image, ReadImage) and row not in faults}
            contents |= {ids[row]: (len(image.data), image.digest) for row, image in good.items()}
            published += [ids[row] for row in good]
            if good:  # `datasets` cannot open a Parquet file with an empty row group
                of_chunk = facts.slice(start, chunk.num_rows)
                of_good = of_chunk.take(pa.array(list(good), pa.int64())) if faults else of_chunk
                yield _row_group(self._schema(uses), of_good, list(good.values()))
            start += chunk.num_rows
        self._store_left_out(number, left_out)  # before the shard is complete: no shard lacks this file
        if OCR in uses:
            store_ocr_rows(self.publication.lists, number, published)

    def _store_left_out(self, number: int, left_out: Mapping[str, str]) -> None:
        if left_out:
            lists, name = self.publication.lists, _left_out_name(number)
            of_other_subsets = json.loads(lists.read(name)) if lists.exists(name) else {}
            lists.write(name, json.dumps({**of_other_subsets, **left_out}, indent=1).encode())

    def _facts(self, rows: pa.Table, uses: Sequence[str]) -> pa.Table:
        """Return the columns of a shard that do not come from the bytes of the images, and the name of each image."""
        ids, formats = rows["id"].to_pylist(), rows["format"].to_pylist()
        names = [file_name(id_, format_) for id_, format_ in zip(ids, formats, strict=True)]
        columns: dict[str, Any] = {RENAMED.get(name, name): rows[name] for name in self.fields}
        columns |= {"id": rows["id"], "image": pa.array(names, pa.string())}
        for use in uses:
            caption = columns["caption"] = rows[_caption(use)]
            columns[conversation_column(use, uses)] = conversations(rows[_question(use)], caption)
        return pa.table({name: columns[name] for name in self._schema(uses).names})

    def _read_ahead(self, rows: pa.Table) -> Iterator[tuple[pa.Table, list[ReadImage | Failure]]]:
        """Yield the rows of each row group with their images, while the images of the next one are read."""
        ends = group_ends(rows["bytes"].fill_null(0).to_pylist())
        chunks = [rows.slice(start, end - start) for start, end in pairwise([0, *ends])]
        with ThreadPoolExecutor(_READERS) as readers:
            reading = ((chunk, self._start_reading(chunk, readers)) for chunk in chunks)
            for chunk, tasks in started_ahead(reading, 1):
                yield chunk, _in_order(chunk, [image for task in tasks for image in task.result()])

    def _start_reading(self, chunk: pa.Table, readers: ThreadPoolExecutor) -> list[Future[list[ReadImage | Failure]]]:
        """Start reading and hashing the images of a chunk, in the order of the pool."""
        images = self.inputs.images
        assert images is not None
        groups = list(images.groups(chunk.take(_pool_order(chunk))))
        size = -(-len(groups) // _READERS)

        def read(some: Sequence[Group]) -> list[ReadImage | Failure]:
            return [hashed(image) for group in some for image in images.read(group)]

        return [readers.submit(read, groups[start : start + size]) for start in range(0, len(groups), max(size, 1))]

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


def _row_group(schema: pa.Schema, facts: pa.Table, images: Sequence[ReadImage]) -> pa.Table:
    """Return a row group of `schema`: facts (see `ShardWriter._facts`), with the images of the same rows."""
    encoded = _joined([image.data for image in images])
    names = facts["image"].combine_chunks()
    columns = dict(zip(facts.column_names, facts.columns, strict=True)) | {
        "image": pa.StructArray.from_arrays([encoded, names], fields=list(IMAGE.fields)),
        "sha256": pa.array([image.digest.hex() for image in images], pa.string()),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _joined(images: Sequence[bytes]) -> pa.Array:
    """Return images as one array. `pa.array` would double its memory again and again, and copy what it has so far."""
    ends = np.cumsum([0, *map(len, images)], dtype=np.int32)
    buffer = pa.allocate_buffer(int(ends[-1]))
    joined = memoryview(buffer).cast("B")
    for image, (start, end) in zip(images, pairwise(ends.tolist()), strict=True):
        joined[start:end] = image
    return pa.Array.from_buffers(pa.binary(), len(images), [None, pa.py_buffer(ends), buffer])


def _caption(use: str) -> str:
    """Return the column of a block that has a caption. No stage has one of the name for `ocr`."""
    return f"caption:{use}" if use == OCR else f"{use}_caption"


def _question(use: str) -> str:
    """Return the column of a block that has the question for a caption. No stage has one of that name."""
    return f"question:{use}"


def _without_other_downloads(rows: pa.Table) -> pa.Table:
    """Return the rows without digests of another download of the same URLs, such as one that resized the images."""
    seen, stored = rows[SHA256].to_pylist(), rows["sha256"].to_pylist()
    known = [digest if digest and digest.hex() == now else None for digest, now in zip(seen, stored, strict=True)]
    return rows.set_column(rows.column_names.index(SHA256), SHA256, pa.array(known, pa.binary()))


def _left_out_name(number: int) -> str:
    return f"{LEFT_OUT}{number:05d}.json"


def _pool_order(chunk: pa.Table) -> pa.Array:
    return pc.sort_indices(chunk, [("shard", "ascending"), ("offset", "ascending"), ("key", "ascending")])


def _in_order(chunk: pa.Table, read: Sequence[ReadImage | Failure]) -> list[ReadImage | Failure]:
    """Reorder images that were read in the order of the pool to the order of the chunk."""
    order = _pool_order(chunk).to_pylist()
    return [image for _, image in sorted(zip(order, read, strict=True), key=lambda pair: pair[0])]
