"""Pools whose shards are the files of a glob, such as tars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from manifests.storage import Folder
from pipeline.pools.base import Pool
from pipeline.pools.entries import entries, matcher, split_pattern
from pipeline.pools.listing import Shard, count_problems
from pipeline.pools.look import Look


class GlobPool(Pool):
    """A pool of files: `where` is a glob (`*`, `?`, `**`), one file, or a folder (files with `ending`, recursively)."""

    ending: ClassVar[str | tuple[str, ...]]
    """The ending, or endings, of the files that a folder is searched for."""
    like_shards: ClassVar[tuple[str, ...]] = ()
    """Endings of files that may be meant as shards but are not listed; they are counted as passed over."""

    def root(self) -> Folder:
        return split_pattern(self.where)[0]

    def shards(self, root: Folder, passed_over: Counter[str]) -> Iterator[Shard]:
        _, rest, wild = split_pattern(self.where)
        matches = matcher(rest, self.where) if wild else None
        if rest and not wild:  # a file that the user names may be a link out of its folder
            size = root.filesystem.get_file_info(f"{root.path}/{rest}").size
            yield from [] if size is None else [Shard(rest, size)]
            return
        others = []
        for entry in entries(root, self.follow_links, recursive=not rest or "/" in rest):
            if matches.fullmatch(entry.path) if matches else entry.path.endswith(self.ending):
                yield Shard(*entry)
            else:
                others.append(entry)
        passed_over.update(count_problems(others, self.like_shard))

    def recognises(self, look: Look) -> str:
        names = look.ending(self.ending)
        return f"files of the kind {self.kind} ({look.summary(names)})" if names else ""

    def like_shard(self, path: str) -> str | None:
        """Return what a file is that is no shard but that its user may expect to be one, else None."""
        ending = next((ending for ending in self.like_shards if path.lower().endswith(ending)), None)
        return ending and f"{ending} files"
