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
from core.text import printable
from manifests.part_files import writer_of
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.pools.globs import GlobPool
from pipeline.pools.images import SPAN, Failure, Group
from pipeline.pools.listing import Listing, Shard, is_candidate
from pipeline.pools.look import Look
from pipeline.pools.medium import FILMS, IMAGES, Medium
from pipeline.pools.packed import START, packed, packed_name
from pipeline.pools.rows import TEXT_LIMIT, Row, alt_text_line, clean, on_disk
from pipeline.pools.side_files import Note, ending_of, pair_members, read_note
from pipeline.pools.tar_header import CheckedHeader
from pipeline.pools.tar_look import kinds_in

_GAP = 256 << 10  # bytes; reading such a gap is faster than another request
_SEARCHED = 200  # tar members that are searched for alt text
_REQUEST = 1 << 20  # bytes per request to an object store
_MAX_ENDING, _MAX_ENDINGS = 16, 100  # in the counts of members: characters of an ending, and different endings

Notes = dict[str, list[tuple[int, Note]]]
"""The contents of a tar's side files by name, each with its byte offset."""


class Tars(GlobPool):
    """A glob of webdataset tars with images and, optionally, `.txt` (alt text) and `.json` members.

    Attributes:
        alt_text: Where the alt text is, if not under a usual name (`rows.NOTES`): a key of the `.json` members or the
            ending of a side file.
    """

    ending: ClassVar = ".tar"
    like_shards: ClassVar = (".tar", ".zip")

    alt_text: str | None = None

    def recognises(self, look: Look) -> str:
        names = look.ending(self.ending)
        if not names or set(kinds_in(look, names)) == {FILMS.noun}:
            return ""
        return f"webdataset tars ({look.summary(names)})"

    def like_shard(self, path: str) -> str | None:
        return packed_name(path) or super().like_shard(path)

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        with on_disk(root, shard.path) as file:
            yield from rows_with_notes(file, self.alt_text, passed_over)

    def joins(self, group: Group, offset: int, length: int) -> bool:
        gap, span = offset - group.end, offset + length - group.offsets[0]
        return 0 <= gap <= _GAP and span <= SPAN

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        start = group.offsets[0]
        with root.filesystem.open_input_file(f"{root.path}/{group.shard}") as file:
            span = memoryview(file.read_at(group.end - start, start))
        images: list[bytes | Failure] = []
        for offset, length in zip(group.offsets, group.lengths, strict=True):
            data = bytes(span[offset - start : offset - start + length])
            images.append(data if len(data) == length else Failure(_cut_off(len(data), length), retry=True))
        return images

    def check_first(self, listing: Listing) -> Listing:
        return check_first_tar(listing, self.kind, self.alt_text)

    def misread(self, index: Table) -> list[str]:
        """See `Pool.misread`. What each version of the reader read wrongly: `READER` in `execution/index.py`."""
        versions = {writer_of(part): provenance.get("reader", 1) for part, provenance in index.provenances().items()}
        wrong = []
        if first := [writer for writer, version in versions.items() if version == 1]:
            wrong.append(_shards_of(index, first).join(_with_dotted_names(index), on="shard", how="semi"))
        if old := [writer for writer, version in versions.items() if version in (1, 2)]:
            wrong.append(_shards_of(index, old).join(_with_repeated_names_or_lost_bytes(index), on="shard", how="semi"))
        return pl.concat(wrong).collect()["shard"].unique().sort().to_list() if wrong else []


def check_first_tar(listing: Listing, kind: str, alt_text: str | None) -> Listing:
    """Return the listing with the source of alt text in its first tar; unchanged if the tar is damaged.

    Args:
        listing: The tars.
        kind: The kind of the pool, for errors.
        alt_text: The setting `alt_text` of the pool.

    Raises:
        UserError: The tar is compressed, or nothing in it has the text that `alt_text` names.
    """
    path = listing.shards["path"][0].as_py()
    try:
        with listing.root.filesystem.open_input_file(f"{listing.root.path}/{path}") as file:
            if error := packed(file.read(START)):
                raise UserError(f"{kind}: {path}: {error}")
            file.seek(0)
            members = _notes(io.BufferedReader(file, _REQUEST), alt_text)
            notes = [note for note in islice(members, _SEARCHED) if note and note.source]
            if alt_text is not None and not notes:  # search the whole tar before the setting is refused
                notes = list(islice((note for note in members if note and note.source), 1))
    except UserError:
        raise
    except (OSError, ValueError, tarfile.TarError):  # indexing reports it later
        return listing
    sources = [note.source for note in sorted(notes, key=lambda note: note.rank)]
    if alt_text is not None and not sources:
        name = alt_text.lstrip(".")
        raise UserError(f"{kind}: {path}: alt_text: no side file ends in .{name}, and no .json has that key")
    return replace(listing, alt_text=alt_text_line(list(dict.fromkeys(sources)), path))


def rows_with_notes(
    file: BinaryIO, alt_text: str | None, passed_over: Counter[str], medium: Medium = IMAGES
) -> Iterator[Row]:
    """Yield the rows of a tar, as `tar_rows` does, with the texts of side files."""
    notes: Notes = {}
    rows = list(tar_rows(file, notes, alt_text, passed_over, medium))
    media = [row for row in rows if row["offset"]]  # only the last row may be about the tar itself
    texts = pair_members([(row["offset"], row["key"]) for row in media], notes)
    for row, text in zip(media, texts, strict=True):
        yield {**text, **row}
    yield from rows[len(media) :]


def _notes(file: io.BufferedReader, alt_text: str | None) -> Iterator[Note | None]:
    """Yield the contents of each tar member that is a side file, and None for each other member."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            yield None if is_candidate(member.name) else _note(archive, member, alt_text)


def _note(archive: tarfile.TarFile, member: tarfile.TarInfo, alt_text: str | None) -> Note | None:
    """Return the contents of a member that is no image; None if it is no side file."""
    if not member.isreg() or member.size > TEXT_LIMIT:
        return None
    return read_note(member.name, archive.extractfile(member).read(), alt_text)  # type: ignore[union-attr]  # a file


def _shards_of(index: Table, writers: Sequence[str]) -> pl.LazyFrame:
    """Return the shards with rows from these index jobs: column `shard`."""
    ids, parts = index.locate()
    numbers = [number for number, part in enumerate(parts) if writer_of(part) in writers]
    rows = index.scan(["id", "shard"]).join(ids.filter(pl.col("part").is_in(numbers)), on="id", how="semi")
    return rows.select("shard").unique()


def _with_dotted_names(index: Table) -> pl.LazyFrame:
    """Return the shards with names that are equal up to the first dot and differ up to the last one."""
    rows = index.scan(["shard", "key"])
    dotted = rows.filter(pl.col("key").str.contains(r"\.[^/]*\.[^/]*$")).select("shard").unique()
    shards = dotted.collect(engine="streaming")["shard"]
    first, full = (pl.col("key").str.replace(ending, "") for ending in (r"\.[^/]*$", r"\.[^./]*$"))
    groups = rows.filter(pl.col("shard").is_in(shards.implode())).group_by("shard", first.alias("first"))
    return groups.agg(full.n_unique().alias("names")).filter(pl.col("names") > 1).select("shard").unique()


def _with_repeated_names_or_lost_bytes(index: Table) -> pl.LazyFrame:
    """Return the shards with images of the same name, or with texts in which bytes became U+FFFD."""
    rows = index.scan(["shard", "alt_text", "error"])
    repeated = pl.col("error").str.starts_with("duplicate name")
    lost = pl.col("alt_text").str.contains("\ufffd", literal=True)
    return rows.filter(repeated | lost).select("shard").unique()


def tar_rows(
    file: BinaryIO,
    notes: Notes | None = None,
    alt_text: str | None = None,
    passed_over: Counter[str] | None = None,
    medium: Medium = IMAGES,
) -> Iterator[Row]:
    """Yield one row per image or film. A damaged tar gets a last row with key "" and offset 0 that says where it ends.

    Args:
        file: The tar, seekable. Members are read in place; nothing is extracted and no link is followed.
        notes: The contents of side files are added to it; None: side files are not read.
        alt_text: The setting `alt_text` of the pool.
        passed_over: The numbers of the other members are added to it, by ending.
        medium: What is read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if error := packed(file.read(START)):
        yield {"key": "", "offset": 0, "error": error}
        return
    file.seek(0)
    images, others = 0, Counter[str]()  # of `others`, "texts" are the side files that were read
    problem = None
    try:
        archive = tarfile.open(fileobj=file, mode="r:", tarinfo=CheckedHeader)
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            if not 0 <= member.size < 1 << 63 or archive.offset < member.offset_data:
                raise tarfile.ReadError("a member of an impossible size")
            if member.isdir():
                continue
            if medium.is_candidate(member.name):
                images += 1
                yield {"key": clean(member.name), "offset": member.offset_data, **_measure(member, file, size, medium)}
            else:
                note = None
                if notes is not None and (note := _note(archive, member, alt_text)):
                    notes.setdefault(clean(member.name), []).append((member.offset_data, note))
                ending = "texts" if note else f".{printable(clean(ending_of(member.name)))[:_MAX_ENDING]}"
                others[ending if ending in others or len(others) < _MAX_ENDINGS else "others"] += 1
            if archive.offset > size:
                raise tarfile.ReadError("unexpected end of data")
        problem = _problem_at_end(file, archive.offset, size)
    except (tarfile.TarError, ValueError, LookupError, OverflowError, MemoryError, RecursionError) as error:
        problem = f"{' '.join(str(error).split()) or type(error).__name__}, at byte {file.tell():,}"
    if problem:
        yield {"key": "", "offset": 0, "error": f"broken tar: {problem}; {images:,} {medium.noun}s were read before it"}
    elif not images:
        yield {"key": "", "offset": 0, "error": f"no {medium.noun}s: a tar of {others.total():,} other members"}
    del others["texts"]
    if passed_over is not None:
        passed_over.update(others)


def _measure(member: tarfile.TarInfo, file: BinaryIO, size: int, medium: Medium) -> Row:
    """Return what an image or film measures, or its error. `size` is the length of the tar in bytes."""
    if not member.isreg():
        kind = "link" if member.issym() or member.islnk() else "not a file"
        return {"error": f"{kind}: a tar member that is not followed"}
    if member.sparse is not None:
        return {"error": "sparse member: holes are not read"}
    available = max(0, size - member.offset_data)
    if available < member.size:
        return {"bytes": member.size, "error": _cut_off(available, member.size)}
    return medium.measure_part(file, member.offset_data, member.size)


def _cut_off(available: int, length: int) -> str:
    return f"cut off: {available:,} of {length:,} bytes are there"


def _problem_at_end(file: BinaryIO, offset: int, size: int) -> str | None:
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
