"""The SHA-256 of each shard, for those who copy a publication. Each shard is read once, after it was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from manifests.storage import Folder

STORED = "sha256.json"
"""The file beside the lists with what is known. It can be deleted: the shards are read again then."""

_READERS = 8
_PIECE = 4 << 20


class HashedPublication(Protocol):
    """A publication of images or of clips."""

    @property
    def out(self) -> Folder: ...

    @property
    def lists(self) -> Folder: ...

    @property
    def format(self) -> str: ...

    @property
    def subsets(self) -> Iterable[str]: ...

    def sizes(self) -> Mapping[str, int]:
        """Return the length in bytes of each shard, by its path in the publication."""
        ...


class HashedFile(NamedTuple):
    """Length of a file in bytes, and its SHA-256, hexadecimal."""

    size: int
    sha256: str


def hash_shards(publication: HashedPublication) -> dict[str, HashedFile]:
    """Return length and hash of each shard, by its path in the publication. What is not stored is read, and stored."""
    sizes, stored = publication.sizes(), _stored(publication)
    known = {name: stored[name] for name, size in sizes.items() if name in stored and stored[name].size == size}
    new = sorted(sizes.keys() - known.keys())
    with ThreadPoolExecutor(_READERS) as readers:
        hashes = readers.map(_sha256, [publication.out] * len(new), new)
        known |= {name: HashedFile(sizes[name], sha256) for name, sha256 in zip(new, hashes, strict=True)}
    hashed = dict(sorted(known.items()))
    if hashed != stored:
        _store(publication, hashed)
    return hashed


def forget_hashes(publication: HashedPublication, names: Collection[str]) -> None:
    """Forget the hashes of shards that are going to be written, before they are: a kill leaves no wrong one."""
    stored = _stored(publication)
    if not stored.keys().isdisjoint(names):
        _store(publication, {name: hashed for name, hashed in stored.items() if name not in names})


def _stored(publication: HashedPublication) -> dict[str, HashedFile]:
    if not publication.lists.exists(STORED):
        return {}
    try:
        read = json.loads(publication.lists.read(STORED))
        return {str(name): HashedFile(int(size), str(sha256)) for name, (size, sha256) in read.items()}
    except (ValueError, TypeError, AttributeError):  # it is made anew
        return {}


def _store(publication: HashedPublication, hashes: dict[str, HashedFile]) -> None:
    publication.lists.write(STORED, json.dumps(hashes, indent=1).encode())


def _sha256(out: Folder, name: str) -> str:
    digest = hashlib.sha256()
    with out.filesystem.open_input_stream(f"{out.path}/{name}") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
