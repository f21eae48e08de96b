"""Count the scans of a JPEG: a few kilobytes of a progressive JPEG may hold thousands of scans over all its pixels."""

from __future__ import annotations

import re

MAX_SCANS = 500
"""The limit that libjpeg-turbo's authors advise. Encoders write 10 to 20 scans, optimisers about 60."""

MAX_WORK = 10_000_000_000
"""Limit for pixels times scans: about half a minute of decoding, or 55 scans of the largest image that is decoded."""

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length: TEM, and restarts between coded data
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the next marker after coded data, which contains only restarts


def count_scans(data: bytes) -> int:
    """Return the number of scans of the first image in `data`, as far as its segments can be parsed; 0 if no JPEG."""
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
        # A length below 2 is an error for a decoder; here the search continues.
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return scans


def scan_error(data: bytes, pixels: int) -> str | None:
    """Return the error of a JPEG with so many scans that decoding takes minutes; None for all other images.

    Args:
        data: The encoded image, of any format.
        pixels: Width times height.
    """
    if data[:2] != bytes((0xFF, _SOI)):
        return None
    most = min(MAX_SCANS, MAX_WORK // max(pixels, 1))
    if data.count(bytes((0xFF, _SOS))) <= most:  # an upper bound, as a preview in EXIF has its own scans
        return None
    scans = count_scans(data)
    return None if scans <= most else f"too many scans: {scans:,} > {most:,}, which would take minutes to decode"
