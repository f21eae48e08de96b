"""Read webdataset tars in place: nothing is extracted, no link is followed, and a truncated tar is reported."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from core.image_header import MAX_BYTES
from core.text import printable
from pipeline.pools.listing import is_candidate
from pipeline.pools.packed import START, packed
from pipeline.pools.rows import TEXT_LIMIT, Row, clean, measure
from pipeline.pools.side_files import Note, ending_of, read_note

_NAME_LIMIT = 1 << 14  # bytes; tarfile takes quadratic time over longer pax headers
_ENDING, _ENDINGS = 16, 100  # longest ending in the counts, in characters, and the number of different ones
Notes = dict[str, list[tuple[int, Note]]]
"""The contents of a tar's side files by name, each with its byte offset."""
_HEADER_FIRST = 1 << 14  # bytes; enough for nearly every JPEG and PNG header


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
