"""Fingerprints of files, computed within seconds, that detect that data have changed since a training started."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    from manifests.storage import Folder

_BLOCK, _BLOCKS = 1 << 18, 4  # bytes of a block, blocks of a file
_AT_ONCE = 16  # files that are read in parallel: on an object store each block is a request


def file_fingerprint(path: str) -> str:
    """Return the SHA-256 of a whole local file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def sampled_fingerprint(folder: Folder, names: Sequence[str]) -> str:
    """Return a hash of the names and sizes of files, and of four blocks of 256 KiB of each, the last at its end.

    So a file of up to 1 MiB is read whole; in a larger one, a change between the blocks that keeps the size is not
    detected.
    """
    with ThreadPoolExecutor(_AT_ONCE) as readers:
        digests = list(readers.map(lambda name: _sample(folder, name), names))
    return hashlib.sha256(json.dumps(list(zip(names, digests, strict=True))).encode()).hexdigest()


def _sample(folder: Folder, name: str) -> str:
    """Hash a file's size and its evenly spaced blocks, the last at its end."""
    with folder.filesystem.open_input_file(f"{folder.path}/{name}") as file:
        size = file.size()
        digest = hashlib.sha256(str(size).encode())
        for begin, length in _blocks(size):
            digest.update(file.read_at(length, begin))
    return digest.hexdigest()


def _blocks(size: int) -> list[tuple[int, int]]:
    """Return (offset, length) of the blocks to read, in bytes."""
    if size <= _BLOCK * _BLOCKS:
        return [(0, size)]
    last = size - _BLOCK
    return [(last * number // (_BLOCKS - 1), _BLOCK) for number in range(_BLOCKS)]
