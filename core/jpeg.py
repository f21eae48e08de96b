"""How many scans a JPEG has: a progressive one may go over all its pixels thousands of times in a few kilobytes."""

from __future__ import annotations

import re

MAX_SCANS = 500
"""The limit that libjpeg-turbo's authors advise. Encoders write ten to twenty scans, optimisers some sixty."""

MAX_WORK = 10_000_000_000
"""Pixels times scans: about half a minute of decoding. 56 scans of the largest image that is decoded at all."""

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length: TEM, and restarts between coded data
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the next one behind coded data, which has none but restarts


def count_scans(data: bytes) -> int:
    """The scans of the first image in `data`, as far as its segments can be followed; 0 for what is no JPEG."""
    if data[:2] != bytes((0xFF, _SOI)):
        return 0
    scans, position = 0, 2
    while marker := _MARKER.search(data, position):
        kind, position = marker[0][-1], marker.end()
        if kind == _EOI:
            break
        if kind in _ALONE:
            continue
        scans += kind == _SOS
        # A length below two is an error to a decoder; here the search goes on.
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return scans


def scan_error(data: bytes, pixels: int) -> str | None:
    """The error of a JPEG that would take minutes to decode for its scans; None for all others.

    Args:
        data: The encoded image, of any format.
        pixels: Width times height.
    """
    if data[:2] != bytes((0xFF, _SOI)):
        return None
    most = min(MAX_SCANS, MAX_WORK // max(pixels, 1))
    if data.count(bytes((0xFF, _SOS))) <= most:  # at least as many as there are: a preview in EXIF has its own
        return None
    scans = count_scans(data)
    return None if scans <= most else f"too many scans: {scans:,} > {most:,}, which would take minutes to decode"
