"""Fingerprints that detect, within seconds, that the data of a training has changed since it started.

- Annotations: SHA-256 of the whole file. The media are not read: there can be millions of files.
- Shards: names and sizes of all, and four blocks of 256 KiB of each, the last with the footer. So a shard of up to
  1 MiB is read whole; in a larger one, a change between the blocks that keeps the size is not detected.
- Starting weights: the same as shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.errors import UserError
from manifests.storage import Folder
from model.training.data.shards import _shards
from model.training.recipe import Source, Start
from model.training.stage import Stage

_BLOCK, _BLOCKS = 1 << 18, 4  # bytes of a block, blocks of a file
_AT_ONCE = 16  # files that are read in parallel: on an object store each block is a request


def fingerprints(sources: Mapping[str, Source], stage: Stage, start: Start) -> dict[str, str]:
    """Return the fingerprint of each source of a stage, and of its starting weights.

    Raises:
        UserError: A file cannot be read.
    """
    prints = {f"source {name}": _source(sources[name]) for name in stage.mixture}
    return {**prints, "the checkpoint that it begins with": _start(start)}


def _source(source: Source) -> str:
    if source.shards:
        folder, _, names = _shards(source.shards.rstrip("/"), source.caption)
        return _sampled(folder, names)
    assert source.annotations is not None
    try:
        with open(source.annotations, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{source.annotations}: cannot be read: {error.strerror}") from error


def _start(start: Start) -> str:
    """Return the fingerprint of the starting weights: after a restart, frozen weights are read from there again.

    New weights depend on the seed only; their fingerprint is an empty text.
    """
    folders = [Path(path) for path in (start.checkpoint, start.vision, start.language) if path]
    prints = [_sampled(Folder.at(path), sorted(file.name for file in path.glob("*.safetensors"))) for path in folders]
    return hashlib.sha256(json.dumps(prints).encode()).hexdigest() if prints else ""


def _sampled(folder: Folder, names: list[str]) -> str:
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
