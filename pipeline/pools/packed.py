"""Detect compressed tars. They are reported and not read, since an image inside cannot be read on its own."""

from __future__ import annotations

_UNPACK = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz", "zstd": "unzstd", "lz4": "unlz4", "lzma": "unlzma"}
_STARTS = {
    b"\x1f\x8b": "gzip",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x5d\0\0\x80\0": "lzma",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
_ENDINGS = (
    *(f".tar.{ending}" for ending in ("gz", "bz2", "xz", "zst", "zstd", "lz4", "lzma", "z")),
    *(".tgz", ".tbz", ".tbz2", ".txz", ".tzst"),
)
START = 10
"""Bytes that identify a compression. An uncompressed tar starts with the name of its first member."""

PACKED = "compressed tar"


def packed(start: bytes) -> str | None:
    """Return an error that names the compression and the fix, from a file's first bytes; None if not compressed."""
    kind = next((kind for mark, kind in _STARTS.items() if start.startswith(mark)), None)
    if kind is None:
        return None
    how = f"unpack it to a .tar, with {_UNPACK[kind]}" if kind in _UNPACK else "unpack it and pack it as a .tar"
    return f"{PACKED}: {kind}, whose images cannot be read one by one; {how}"


def packed_name(path: str) -> str | None:
    """Return "compressed tars" for a path with the ending of a compressed tar, else None."""
    return f"{PACKED}s" if path.lower().endswith(_ENDINGS) else None
