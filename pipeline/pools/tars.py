"""Pools of webdataset tars. Nothing is extracted, no link is followed, and a truncated tar is reported."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import BinaryIO, ClassVar

import polars as pl

from core.errors import UserError
from core.image_header import MAX_BYTES
from core.text import printable
from manifests.storage import Folder
from manifests.tables import Table, writer_of
from pipeline.pools.globs import GlobPool
from pipeline.pools.images import SPAN, Failure, Group
from pipeline.pools.listing import Listing, Shard, is_candidate
from pipeline.pools.packed import START, packed, packed_name
from pipeline.pools.rows import TEXT_LIMIT, Row, alt_text_line, clean, measure, on_disk
from pipeline.pools.side_files import Note, ending_of, pair_members, read_note

_GAP = 256 << 10  # bytes; reading over such a gap is faster than another request
_MEMBERS = 200  # tar members that are searched for alt text
_READ = 1 << 20  # bytes per request to an object store
_NAME_LIMIT = 1 << 14  # bytes; tarfile takes quadratic time over longer pax headers
_ENDING, _ENDINGS = 16, 100  # longest ending in the counts, in characters, and the number of different ones
Notes = dict[str, list[tuple[int, Note]]]
"""The contents of a tar's side files by name, each with its byte offset."""
_HEADER_FIRST = 1 << 14  # bytes; enough for nearly every JPEG and PNG header


class Tars(GlobPool):
    """A glob of webdataset tars with images and, optionally, `.txt` (alt text) and `.json` members.

    Attributes:
        alt_text: Where the alt text is, if not under a usual name (`rows.NOTES`): a key of the `.json` members or the
            ending of a side file.
    """

    ending: ClassVar = ".tar"
    like_shards: ClassVar = (".tar", ".zip")

    alt_text: str | None = None

    def like_shard(self, path: str) -> str | None:
        return packed_name(path) or super().like_shard(path)

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        with on_disk(root, shard.path) as file:
            notes: Notes = {}
            rows = list(tar_rows(file, notes, self.alt_text, passed_over))
        images = [row for row in rows if row["key"] or row["offset"]]
        texts = pair_members([(row["offset"], row["key"]) for row in images], notes)
        for row, text in zip(images, texts, strict=True):
            yield {**text, **row}
        yield from rows[len(images) :]

    def joins(self, group: Group, offset: int, length: int) -> bool:
        return 0 <= offset - group.end <= _GAP and offset + length - group.offsets[0] <= SPAN

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        start = group.offsets[0]
        with root.filesystem.open_input_file(f"{root.path}/{group.shard}") as file:
            span = memoryview(file.read_at(group.end - start, start))
        images: list[bytes | Failure] = []
        for offset, length in zip(group.offsets, group.lengths, strict=True):
            data = bytes(span[offset - start : offset - start + length])
            missing = f"cut off: {len(data):,} of {length:,} bytes are there"
            images.append(data if len(data) == length else Failure(missing))
        return images

    def check_first(self, listing: Listing) -> Listing:
        path = listing.shards["path"][0].as_py()
        try:
            with listing.root.filesystem.open_input_file(f"{listing.root.path}/{path}") as file:
                if error := packed(file.read(START)):
                    raise UserError(f"{self.kind}: {path}: {error}")
                file.seek(0)
                notes = _side_files(io.BufferedReader(file, _READ), self.alt_text)
                some = [note for note in islice(notes, _MEMBERS) if note]
                if self.alt_text is not None and not any(note.source for note in some):
                    some += [note for note in notes if note and note.source][:1]
        except UserError:
            raise
        except (OSError, ValueError, tarfile.TarError):  # indexing reports it later
            return listing
        sources = [note.source for note in sorted(some, key=lambda note: note.rank) if note.source]
        if self.alt_text is not None and not sources:
            name = self.alt_text.lstrip(".")
            raise UserError(f"{self.kind}: {path}: alt_text: no side file ends in .{name}, and no .json has that key")
        return replace(listing, alt_text=alt_text_line(list(dict.fromkeys(sources)), path))

    def misread(self, index: Table) -> list[str]:
        """See `Pool.misread`; `reader` in the provenance of the index is the version (`execution/index.py`)."""
        readers = {writer: provenance.get("reader", 1) for writer, provenance in index.provenances().items()}
        dotted, others = (_written_by(index, [w for w, n in readers.items() if n in old]) for old in ((1,), (1, 2)))
        wrong = [] if dotted is None else [dotted.join(_mixed(index), on="shard", how="semi")]
        wrong += [] if others is None else [others.join(_changed_since(index), on="shard", how="semi")]
        return pl.concat(wrong).collect()["shard"].unique().sort().to_list() if wrong else []


def _side_files(file: io.BufferedReader, alt_text: str | None) -> Iterator[Note | None]:
    """Yield the note of each tar member; None for images and for members that hold no metadata."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            if is_candidate(member.name) or not member.isreg() or member.size > TEXT_LIMIT:
                yield None
            else:
                yield read_note(member.name, archive.extractfile(member).read(), alt_text)  # type: ignore[union-attr]


def _written_by(index: Table, writers: Sequence[str]) -> pl.LazyFrame | None:
    """Return the shards with rows from these jobs: column `shard`; None if `writers` is empty."""
    if not writers:
        return None
    places, parts = index.locate()
    old = [number for number, part in enumerate(parts) if writer_of(part) in writers]
    places = index.scan(["id", "shard"]).join(places.filter(pl.col("part").is_in(old)), on="id", how="semi")
    return places.select("shard").unique()


def _mixed(index: Table) -> pl.LazyFrame:
    """Return the shards with names that are equal up to the first dot and differ up to the last one."""
    rows = index.scan(["shard", "key"])
    dotted = rows.filter(pl.col("key").str.contains(r"\.[^/]*\.[^/]*$")).select("shard").unique()
    shards = dotted.collect(engine="streaming")["shard"]
    first, full = (pl.col("key").str.replace(ending, "") for ending in (r"\.[^/]*$", r"\.[^./]*$"))
    groups = rows.filter(pl.col("shard").is_in(shards.implode())).group_by("shard", first.alias("first"))
    return groups.agg(full.n_unique().alias("names")).filter(pl.col("names") > 1).select("shard").unique()


def _changed_since(index: Table) -> pl.LazyFrame:
    """Return the shards with images of the same name, or with texts in which bytes became U+FFFD."""
    rows = index.scan(["shard", "alt_text", "error"])
    again = pl.col("error").str.starts_with("duplicate name") | pl.col("alt_text").str.contains("\ufffd", literal=True)
    return rows.filter(again).select("shard").unique()


def tar_rows(
    file: BinaryIO, notes: Notes | None = None, alt_text: str | None = None, passed_over: Counter[str] | None = None
) -> Iterator[Row]:
    """Yield one row per image member. A damaged tar gets a last row with key "" and offset 0 that says where it ends.

    Args:
        file: The tar, seekable. Members are read in place; nothing is extracted and no link is followed.
        notes: Is filled with the contents of side files by name, each with its byte offset.
        alt_text: The setting `alt_text` of the pool.
        passed_over: Is filled with the number of members that are neither images nor texts that are read, by ending.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if error := packed(file.read(START)):
        yield {"key": "", "offset": 0, "error": error}
        return
    file.seek(0)
    images, others = 0, Counter[str]()
    broken = None
    try:
        archive = tarfile.open(fileobj=file, mode="r:", tarinfo=_Member)
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            if not 0 <= member.size < 1 << 63 or archive.offset < member.offset_data:
                raise tarfile.ReadError("a member of an impossible size")
            if member.isdir():
                continue
            if is_candidate(member.name):
                images += 1
                yield {"key": clean(member.name), "offset": member.offset_data, **_member(archive, member, file, size)}
            else:
                note = None
                if notes is not None and member.isreg() and member.size <= TEXT_LIMIT:
                    data = archive.extractfile(member).read()  # type: ignore[union-attr]  # it is a file
                    if note := read_note(member.name, data, alt_text):
                        notes.setdefault(clean(member.name), []).append((member.offset_data, note))
                what = "texts" if note else f".{printable(clean(ending_of(member.name)))[:_ENDING]}"
                others[what if what in others or len(others) < _ENDINGS else "others"] += 1
            if archive.offset > size:
                raise tarfile.ReadError("unexpected end of data")
        broken = _end_of(file, archive.offset, size)
    except (tarfile.TarError, ValueError, LookupError, OverflowError, MemoryError, RecursionError) as error:
        broken = f"{' '.join(str(error).split()) or type(error).__name__}, at byte {file.tell():,}"
    if broken:
        yield {"key": "", "offset": 0, "error": f"broken tar: {broken}; {images:,} images were read before it"}
    elif not images:
        yield {"key": "", "offset": 0, "error": f"no images: a tar of {others.total():,} other members"}
    del others["texts"]
    if passed_over is not None:
        passed_over.update(others)


_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Member(tarfile.TarInfo):
    """A tar header that refuses sizes that tarfile cannot handle, before tarfile reads that many bytes."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENSIONS and self.size > _NAME_LIMIT):
            raise tarfile.ReadError(f"a header that claims {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, file: BinaryIO, size: int) -> Row:
    if not member.isreg():
        kind = "link" if member.issym() or member.islnk() else "not a file"
        return {"error": f"{kind}: a tar member that is not followed"}
    if member.sparse is not None:
        return {"error": "sparse member: holes are not read"}
    available = max(0, size - member.offset_data)
    if available < member.size:
        return {"bytes": member.size, "error": f"cut off: {available:,} of {member.size:,} bytes are there"}

    file.seek(member.offset_data)
    start = file.read(min(member.size, _HEADER_FIRST))
    if member.size <= MAX_BYTES and start.startswith((b"\xff\xd8\xff", b"\x89PNG")):  # the header is enough
        row = {**measure(start), "bytes": member.size}
        if "width" in row or len(start) == member.size:
            return row
    return measure(archive.extractfile(member), member.size)  # type: ignore[arg-type]


def _end_of(file: BinaryIO, offset: int, size: int) -> str | None:
    """Return what is wrong after the last member, else None: tarfile stops silently at a block that is no header."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return f"no end-of-archive mark at byte {size:,}, it may be cut short"
    if block.strip(b"\0"):
        return f"bad header at byte {offset:,}"
    position = offset
    while more := file.read(1 << 20):
        if more.strip(b"\0"):
            return f"data behind the end-of-archive mark at byte {position:,} (tars joined together?)"
    return None
