"""A folder of published records: its settings, lists and shards are checked before anything is written to it.

As for images (`pipeline.publishing.publication`), `OUT/.publication/` stores which clip is in which shard. Beside the
lists, an account of each shard says how many records it has, and which of its clips were left out and why.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.record_files import NAME
from manifests.shards import LISTS
from manifests.storage import Folder
from pipeline.publishing.clips.facts import SUBSETS
from pipeline.publishing.clips.media import Films, media_folder
from pipeline.publishing.lists import CLIPS, ELSEWHERE, KIND, REMEDY, listed_in
from pipeline.publishing.publication import SETTINGS, read_json
from pipeline.recipe_file import PublishClips

_SHARD = re.compile(rf"{NAME}(\d+)\.parquet")
_AGAIN = "delete it and the shards of that number, and publish again: they are written again"
_REQUESTS = 16  # concurrent checks of shards, each one small read


@dataclass(frozen=True)
class Account:
    """What a shard holds.

    Attributes:
        records: Number of records, by subset.
        left_out: Clips that are not in it: the reason by id (as a string).
        rejected: How many facts became no record, by reason.
        licences: Number of its clips, by licence.
    """

    records: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    licences: Mapping[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return json.dumps({name: dict(getattr(self, name)) for name in _PARTS}, indent=1, sort_keys=True).encode()

    def __or__(self, other: Account) -> Account:
        """Return the account of two shards together."""
        counted = {name: Counter(getattr(self, name)) + Counter(getattr(other, name)) for name in _COUNTED}
        return Account(left_out={**self.left_out, **other.left_out}, **counted)


_COUNTED = ("records", "rejected", "licences")
_PARTS = (*_COUNTED, "left_out")


@dataclass(frozen=True)
class ClipPublication:
    """A folder of published records, or one that is going to be.

    Attributes:
        out: The folder.
        subsets: Its subsets.
        films: What becomes of the films, see `PublishClips`.
    """

    out: Folder
    subsets: Sequence[str]
    films: Films

    @property
    def format(self) -> str:
        return "parquet"

    @property
    def lists(self) -> Folder:
        return self.out.join(LISTS)

    def names(self, numbers: Iterable[int]) -> set[str]:
        """Return the paths of the shards with these numbers, relative to the publication."""
        return {shard_name(subset, number) for number in numbers for subset in self.subsets}

    def open(self, settings: PublishClips, tables: Mapping[str, str], media: str) -> None:
        """Store the settings of a new publication, or check those of an existing one, with its shards.

        Args:
            settings: The settings.
            tables: The names of the stage tables that records are made of, by stage.
            media: The path of the pool in the media folder; empty: no film is referenced.

        Raises:
            UserError: The publication was started with other settings, by another recipe, or holds images; settings or
                lists are missing or damaged; a shard is damaged, or in no list.
        """
        # A concurrent publication writes settings, list and shards in this order: read them in the reverse order.
        shards = self._shards()
        listed, _ = listed_in(self.lists)
        now = {**settings.model_dump(mode="json"), "subsets": list(self.subsets), "tables": dict(tables)}
        now |= {"media": media, KIND: CLIPS}
        if self.lists.exists(SETTINGS):
            self._compare(now)
        elif listed.height:
            raise UserError(f"{self.lists.path}/{SETTINGS}: this file is missing; {REMEDY}")
        elif not self.lists.create_file(SETTINGS, json.dumps(now, indent=1, sort_keys=True).encode()):
            self._compare(now)
        if unlisted := sorted(shards.keys() - self.names(listed["number"].unique())):
            raise UserError(
                f"{self.out.path}/{unlisted[0]} is in no list of {LISTS}: copy that folder too, or {ELSEWHERE}"
            )
        with ThreadPoolExecutor(_REQUESTS) as threads:
            list(threads.map(self._check_shard, shards.items()))

    def missing(self, listed: pl.DataFrame) -> list[int]:
        """Return the numbers of shards of which a file is missing: records, or a clip's film.

        Args:
            listed: Columns `id` and `number`.
        """
        stored = self.sizes().keys()
        sizes = listed.group_by("number").len().sort("number")
        return [n for n, clips in sizes.iter_rows() if not self.names([n]) <= stored or not self._has_media(n, clips)]

    def sizes(self) -> dict[str, int]:
        """Return the length in bytes of each shard of records, by its path in the publication."""
        return {name: file.size for name, file in self._shards().items()}

    def media_bytes(self, numbers: Iterable[int]) -> int:
        """Return the length of all clips in the shards with these numbers, in bytes."""
        if self.films == "reference":
            return 0
        return sum(file.size for number in numbers for file in self.out.join(media_folder(number)).files())

    def account(self, number: int) -> Account:
        """Return the account of a shard.

        Raises:
            UserError: It is missing or damaged.
        """
        name = account_name(number)
        if not self.lists.exists(name):
            raise UserError(f"{self.lists.path}/{name}: this file is missing; {REMEDY}")
        read = read_json(self.lists, name, _AGAIN)
        if any(not isinstance(read.get(part), dict) for part in _PARTS):
            raise UserError(f"{self.lists.path}/{name}: the file is damaged (a part is missing); {_AGAIN}")
        return Account(**{part: read[part] for part in _PARTS})

    def accounts(self, numbers: Iterable[int]) -> Account:
        """Return the account of several shards together."""
        total = Account()
        for number in numbers:
            total |= self.account(number)
        return total

    def _shards(self) -> dict[str, pafs.FileInfo]:
        files = [file for subset in SUBSETS for file in self.out.join(subset).files()]
        return {self.out.relative(file.path): file for file in files if _SHARD.fullmatch(file.base_name)}

    def _has_media(self, number: int, clips: int) -> bool:
        if self.films == "reference":
            return True
        files = [f for f in self.out.join(media_folder(number)).files() if f.base_name.endswith((".mp4", ".mkv"))]
        return len(files) >= clips - len(self.account(number).left_out)

    def _compare(self, now: Mapping[str, Any]) -> None:
        stored = read_json(self.lists, SETTINGS, REMEDY)
        if stored.get(KIND) != CLIPS:
            raise UserError(f"{self.out.path} has images with captions, not clips: {ELSEWHERE}")
        before = {**PublishClips().model_dump(mode="json"), **stored}
        if changed := [name for name in now if name != "tables" and before.get(name) != now[name]]:
            name = changed[0]
            raise UserError(
                f"{self.out.path} was published with {name} {before.get(name)}, not {now[name]}: {ELSEWHERE}"
            )
        if stored.get("tables") != now["tables"]:
            raise UserError(f"{self.out.path} has records of another recipe, with other facts: {ELSEWHERE}")

    def _check_shard(self, shard: tuple[str, pafs.FileInfo]) -> None:
        """Compare a shard with its account, by its footer."""
        name, file = shard
        subset, number = name.partition("/")[0], int(file.base_name.removeprefix(NAME).partition(".")[0])
        expected = self.account(number).records.get(subset, 0)
        with self.out.filesystem.open_input_file(file.path) as opened:
            try:
                rows = pq.ParquetFile(opened).metadata.num_rows
            except pa.ArrowException as error:
                problem = " ".join(str(error).split())
                raise UserError(f"{file.path}: the shard is damaged ({problem}); {_REWRITTEN}") from error
        if rows != expected:
            raise UserError(f"{file.path}: it has {rows:,} records, and its account {expected:,}; {_REWRITTEN}")


_REWRITTEN = "delete it and publish again: it is written again"


def shard_name(subset: str, number: int) -> str:
    """Return the path of a shard of records, relative to the publication. Sources find files by this form."""
    return f"{subset}/{NAME}{number:05d}.parquet"


def account_name(number: int) -> str:
    """Return the file of a shard's account, beside the lists."""
    return f"clips-{number:05d}.json"
