"""The parts of a table and the files that hold them: a file for each part, or one file for many parts.

`manifests.compaction` writes a file with the rows of many parts. It keeps the name and the provenance of each part, so
everything that is known of a row stays known. The files that it replaces are deleted later. Until then two files hold
a part, which counts once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.checksums import Footer
from manifests.embeddings import is_embedding
from manifests.parts import COMPACTED_VERSION, VERSION, footer_of, to_bytes
from manifests.storage import Folder

_PART, _SUFFIX = "part-", ".parquet"
_NAME = re.compile(rf"{_PART}\d{{6,}}-[0-9a-f]+-[0-9a-f]{{16}}-[0-9a-f]{{16}}{re.escape(_SUFFIX)}")
_COMPACTED = "000000-"
"""Begin of the writer in the name of a file with many parts. The generations of jobs begin at 1."""

_PROVENANCE, _PARTS = b"vl3syn", b"vl3syn.parts"
"""Metadata keys: what computed the rows, as JSON; and the parts of a file with many, in the order of their rows."""


@dataclass(frozen=True)
class Part:
    """One part of a table.

    Attributes:
        name: `part-<generation>-<writer>-<smallest id>-<hash of the ids>.parquet`, as its job has named it.
        file: The file that holds it.
        start: Its first row in the file.
        rows: Number of its rows; None: all rows of the file.
        provenance: What computed the rows; None: the metadata of the file says it.
    """

    name: str
    file: pafs.FileInfo
    start: int = 0
    rows: int | None = None
    provenance: dict[str, object] | None = None

    @property
    def writer(self) -> str:
        return writer_of(self.name)


@dataclass(frozen=True)
class PartFiles:
    """The files of a table, as they were listed.

    Attributes:
        folder: Their folder.
        remedy: What to do about a damaged file, for the error.
        listed: All of them, sorted by name.
    """

    folder: Folder
    remedy: str
    listed: Sequence[pafs.FileInfo]

    @classmethod
    def of(cls, folder: Folder, remedy: str) -> PartFiles:
        """List the files of the table in `folder`.

        Raises:
            UserError: A file has nearly the name of a part, as copies have.
        """
        files = [f for f in folder.files() if f.base_name.startswith(_PART) and f.base_name.endswith(_SUFFIX)]
        # The rows of such a file may also be in another part, or nowhere else. Only the user knows.
        if wrong := [f.path for f in files if not _NAME.fullmatch(f.base_name)]:
            raise UserError(
                f"{wrong[0]}: no part has such a name; if it is a copy, move it away, if it was renamed, "
                "give it back its name"
            )
        return cls(folder, remedy, files)

    @cached_property
    def contents(self) -> Sequence[Sequence[Part]]:
        """The parts in each listed file, files with many first: if several files hold a part, the first one counts."""
        return sorted(map(self._content, self.listed), key=len, reverse=True)

    @cached_property
    def parts(self) -> Sequence[Part]:
        """Each part once, oldest generation first."""
        found: dict[str, Part] = {}
        for content in self.contents:
            for part in content:
                found.setdefault(part.name, part)
        return [found[name] for name in sorted(found)]

    @cached_property
    def files(self) -> Sequence[pafs.FileInfo]:
        """The files that hold `parts`, in their order. Other files were replaced."""
        return list({part.file.path: part.file for part in self.parts}.values())

    def provenance(self, part: Part) -> dict[str, object]:
        """Return what computed the rows of a part."""
        if part.provenance is not None:
            return part.provenance
        text = (self._footer(part.file).schema.metadata or {}).get(_PROVENANCE, b"{}")
        provenance: dict[str, object] = json.loads(text)
        return provenance

    def lengths(self) -> npt.NDArray[np.int64]:
        """Return the number of rows of each part."""
        of_parts = (self._footer(part.file).rows if part.rows is None else part.rows for part in self.parts)
        return np.fromiter(of_parts, np.int64)

    def starts(self) -> npt.NDArray[np.int64]:
        """Return the number of each part's first row, if the rows of `files` are numbered in their order."""
        first = dict(
            zip((file.path for file in self.files), np.cumsum([0, *self.rows_of_files()]).tolist(), strict=False)
        )
        return np.array([first[part.file.path] + part.start for part in self.parts], np.int64)

    def rows_of_files(self) -> list[int]:
        """Return the number of rows of each of `files`, with copies of parts."""
        return [self._footer(file).rows for file in self.files]

    def _content(self, file: pafs.FileInfo) -> Sequence[Part]:
        """Return the parts in a file. Only the footer of a file with many parts is read."""
        if not writer_of(file.base_name).startswith(_COMPACTED):
            return [Part(file.base_name, file)]
        content = json.loads((self._footer(file).schema.metadata or {})[_PARTS])
        parts, start = [], 0
        for name, rows, provenance in content["parts"]:
            parts.append(Part(name, file, start, rows, content["provenances"][provenance]))
            start += rows
        return parts

    def _footer(self, file: pafs.FileInfo) -> Footer:
        return footer_of(self.folder, file, self.remedy)


def part_name(writer: str, ids: pa.ChunkedArray) -> str:
    """Return the name of the part of `writer` with these ids."""
    values = ids.combine_chunks().to_numpy(zero_copy_only=False)
    smallest = int(values.min()) + (1 << 63) if len(values) else 0
    digest = hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()
    return f"{_PART}{writer}-{smallest:016x}-{digest}{_SUFFIX}"


def writer_of(name: str) -> str:
    """Return the writer (job) of the part called `name`."""
    return name.removeprefix(_PART).rsplit("-", 2)[0]


def generation_of(writer: str) -> int:
    """Return the generation of a writer; that of a job is larger than those of the jobs before it."""
    return int(writer.partition("-")[0])


def write_part(folder: Folder, writer: str, rows: pa.Table, provenance: Mapping[str, object]) -> str:
    """Write the rows of one part; return its name."""
    name = part_name(writer, rows["id"])
    _write(folder, name, rows, {_PROVENANCE: _json(provenance)}, VERSION)
    return name


def write_compacted(
    folder: Folder, names: Sequence[str], rows: Sequence[pa.Table], provenances: Sequence[Mapping[str, object]]
) -> str:
    """Write a file with the parts of these names, rows and provenances; return its name.

    The name depends on the parts only: two processes that compact the same parts write the same file.
    """
    numbers: dict[str, int] = {}
    by = [numbers.setdefault(_json(provenance), len(numbers)) for provenance in provenances]
    parts = list(zip(names, [of_part.num_rows for of_part in rows], by, strict=True))
    content = {"parts": parts, "provenances": [json.loads(text) for text in numbers]}
    joined = pa.concat_tables([of_part.replace_schema_metadata(None) for of_part in rows])
    digest = hashlib.blake2b("".join(names).encode(), digest_size=8).hexdigest()
    name = part_name(f"{_COMPACTED}{digest}", joined["id"])
    metadata = {_PROVENANCE: _json(provenances[-1]), _PARTS: _json(content)}
    _write(folder, name, joined, metadata, COMPACTED_VERSION)
    return name


def _write(folder: Folder, name: str, rows: pa.Table, metadata: Mapping[bytes, str], version: int) -> None:
    # Dictionary encoding saves no space for embeddings, and reading them takes four times as long.
    repeating = [_leaf(field) for field in rows.schema if not is_embedding(field)]
    folder.write(name, to_bytes(rows.replace_schema_metadata(metadata), repeating, name, version))


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(dict(value), sort_keys=True)


def _leaf(field: pa.Field) -> str:
    """Return Parquet's name for the values of a column."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
