"""Check the boxes of an MP4 before FFmpeg reads them: a few bytes in it can claim samples that fill the memory.

FFmpeg keeps some 60 bytes for each sample. Each sample has bytes of its own in the file, so a file with more samples
than bytes is no film. FFmpeg itself refuses tables of more than 2 GiB. ISO/IEC 14496-12 describes the boxes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from core.errors import BadSampleError

_PARENTS = frozenset(
    b"moov trak mdia minf stbl edts mvex moof traf udta dinf wide gmhd tref sinf schi skip free".split()
)
_DEEPEST, _MOST_BOXES = 10, 1_000_000
_MOST_EDITS = 1000
"""Edits of a track: FFmpeg copies the samples of each. Films from cameras have one, from editors some dozens."""


def check_boxes(file: BinaryIO) -> None:
    """Check a file that may be an MP4. Other files pass.

    Raises:
        BadSampleError: It claims more samples than it has bytes, too many edits, or has a compressed header.
        OSError: It cannot be read.
    """
    length = file.seek(0, os.SEEK_END)
    claimed = 0
    for kind, start, size in _boxes(file, 0, length):
        if kind not in (b"stsz", b"trun", b"elst", b"cmov"):
            continue
        file.seek(start)
        body = file.read(12).ljust(12, b"\0")
        flags, second, third = (int.from_bytes(body[at : at + 4], "big") for at in (0, 4, 8))
        if kind == b"cmov":
            raise BadSampleError("compressed header: its size is unknown before it is unpacked; write the film anew")
        if kind == b"elst" and second > _MOST_EDITS:
            raise BadSampleError(f"impossible index: {second:,} edits of a track, more than {_MOST_EDITS:,}")
        if kind == b"stsz":  # samples of one size need no table
            claimed += third if second else 0
        if kind == b"trun" and 4 * second * (flags & 0xF00).bit_count() + 8 > size:
            raise BadSampleError(f"impossible index: {second:,} samples of a fragment, listed in {size:,} bytes")
        if kind == b"trun" and not flags & 0xF00:
            claimed += second
        if claimed > length:
            raise BadSampleError(f"impossible index: {claimed:,} samples in a file of {length:,} bytes")
    file.seek(0)


def _boxes(file: BinaryIO, start: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start and the length of each box's content, with those within it."""
    number = 0
    while end - start >= 8 and number < _MOST_BOXES:
        number += 1
        file.seek(start)
        header = file.read(16)
        size, kind, head = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1:
            size, head = int.from_bytes(header[8:], "big"), 16
        if size == 0:
            size = end - start
        if size < head:
            return
        yield kind, start + head, min(size, end - start) - head
        if kind in _PARENTS and depth < _DEEPEST:
            yield from _boxes(file, start + head, min(start + size, end), depth + 1)
        start += size
