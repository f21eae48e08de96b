"""A list of ids that must not be in the data, such as the YouTube ids of a benchmark's films."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.errors import UserError

_SHORTEST = 4  # characters; a shorter id is a part of too many names
_YOUTUBE = 11  # characters of an id of YouTube
_SPLIT = re.compile(r"[/\\?&=#]+")


class BlockedIds:
    """Ids, and the search for them in the names of a row: its id, the paths of its media, its URL.

    An id is found where it is a whole part of a path or URL, without ending and without `v_` before it; or the first 11
    characters of one, if no letter or digit follows (`ID_10.0_20.0.mp4`).
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(ids)

    @classmethod
    def read(cls, path: str) -> BlockedIds:
        """Read a file of UTF-8 with one id per line; empty lines and lines after `# ` are passed over.

        Raises:
            UserError: It cannot be read, has no ids, or one of fewer than four characters.
        """
        try:
            lines = Path(path).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from error
        ids = [line.strip() for line in lines if line.strip() and not line.startswith("# ")]
        if not ids:
            raise UserError(f"{path}: no ids in it: write one per line")
        if short := next((one for one in ids if len(one) < _SHORTEST), None):
            raise UserError(f"{path}: {short!r}: an id of fewer than {_SHORTEST} characters would be found by chance")
        return cls(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, names: Iterable[str]) -> list[str]:
        """Return the ids that the names of a row have, each once, in the order of the names."""
        return list(dict.fromkeys(part for name in names for part in _parts(name) if part in self._ids))


def _parts(name: str) -> Iterator[str]:
    yield name
    for part in _SPLIT.split(name):
        for stem in dict.fromkeys([part, part.partition(".")[0], part.rpartition(".")[0]]):
            plain = stem.removeprefix("v_")
            yield from (stem, plain)
            if len(plain) > _YOUTUBE and not plain[_YOUTUBE].isalnum():
                yield plain[:_YOUTUBE]
