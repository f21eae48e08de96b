"""A bounded look at a path: some thousands of names, for kinds of pools to say whether they recognise their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import BinaryIO

from pyarrow import fs as pafs

from core.errors import UserError
from manifests.storage import Folder
from pipeline.pools.entries import entries, matcher, split_pattern
from pipeline.pools.listing import format_counts

NAMES = 10_000
"""Files that are looked at, at most."""

_FOLDERS = 16  # of an object store that are listed, at most; each takes a request or more
_ENDINGS = 4  # in a summary, the most frequent first


@dataclass(frozen=True)
class Look:
    """What lies at a path. Hidden files, pipes and devices are left out, and links out of it unless they are followed.

    Attributes:
        where: The path, glob or URL, as the user gave it.
        root: The folder that the names are relative to.
        names: The paths of the files, sorted; at most `NAMES`.
        is_folder: Whether `where` is a folder, not a glob or one file.
        complete: Whether these are all files.
        follow_links: Whether links may lead out of a local folder.
    """

    where: str
    root: Folder
    names: Sequence[str]
    is_folder: bool
    complete: bool
    follow_links: bool = False

    @classmethod
    def at(cls, where: str, leave_out: Folder | None = None, follow_links: bool = False) -> Look:
        """Look at a path. Files in `leave_out` (a run directory) are not looked at.

        Raises:
            UserError: There is nothing, or it cannot be read.
        """
        problems = Counter[str]()
        try:
            root, rest, wild = split_pattern(where)
            if rest and not wild:
                is_file = root.filesystem.get_file_info(f"{root.path}/{rest}").type == pafs.FileType.File
                names, complete = [rest] if is_file else [], True
            else:
                listed = list(islice(_files(root, not rest or "/" in rest, follow_links, problems), NAMES + 1))
                complete = len(listed) <= NAMES
                matches = matcher(rest, where).fullmatch if rest else bool
                names = sorted(name for name in listed[:NAMES] if matches(name) and not _is_hidden(name))
        except OSError as error:
            raise UserError(f"{where}: {error.strerror or ' '.join(str(error).split())}") from error
        if leave_out and leave_out.path.startswith(root.path):
            names = [name for name in names if not f"{root.path}/{name}".startswith(f"{leave_out.path}/")]
        if not names:
            seen = f" (passed over: {format_counts(problems)})" if problems else ""
            raise UserError(f"{where} has nothing to index{seen}; check the path")
        return cls(where, root, names, is_folder=not rest, complete=complete, follow_links=follow_links)

    def ending(self, endings: str | Iterable[str]) -> list[str]:
        """Return the names with one of these endings, in any case."""
        wanted = (endings,) if isinstance(endings, str) else tuple(endings)
        return [name for name in self.names if name.lower().endswith(wanted)]

    def open(self, name: str) -> BinaryIO:
        """Open one of the files to read its first bytes.

        Raises:
            OSError, LinkError: It cannot be read, or has become a link out of the folder.
        """
        named = not self.is_folder and len(self.names) == 1  # a single file that the user names may be a link
        if self.root.local and not named and not self.follow_links:
            return self.root.open_inside(name)
        return self.root.filesystem.open_input_file(f"{self.root.path}/{name}")  # type: ignore[no-any-return]

    def summary(self, names: Sequence[str] | None = None) -> str:
        """Describe names (default all) as `1,203 .jpg, 4 .png`."""
        counts = Counter(PurePosixPath(name).suffix.lower() or "without ending" for name in names or self.names)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{count:,} {ending}" for ending, count in ranked[:_ENDINGS]]
        others = sum(count for _, count in ranked[_ENDINGS:])
        text = ", ".join([*shown, *([f"{others:,} others"] if others else [])])
        return text if self.complete else f"{text} among the first {NAMES:,} files"


def _files(root: Folder, recursive: bool, follow_links: bool, problems: Counter[str]) -> Iterator[str]:
    """Yield the paths of files; count those that must not be opened in `problems`, by the reason.

    Of an object store at most `_FOLDERS` folders are listed, those above first.
    """
    if root.local:
        for entry in entries(root, follow_links, recursive=recursive):
            if entry.problem:
                problems[entry.problem] += 1
            else:
                yield entry.path
        return
    pending = [root]
    for number in range(_FOLDERS):
        if number == len(pending):
            return
        folder = pending[number]
        yield from (root.relative(file.path) for file in folder.files())
        pending += [folder.join(name) for name in folder.folders()] if recursive else []


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
