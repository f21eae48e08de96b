"""Check an existing publication (settings, lists, shards) before anything is written to it.

`OUT/.publication/` stores which image is in which shard. Without it, nobody knows what is published. So shards that are
in no list are refused, and so are shards that differ from their list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.checksums import UNREADABLE, DamagedError
from manifests.parts import scan_parts
from manifests.shards import LEFT_OUT, LISTS, OCR, SUBSETS, TOGETHER, shard_name
from manifests.storage import Folder
from manifests.tar_shards import IMAGE_ENDING
from pipeline.publishing.ocr_rows import read_ocr_rows
from pipeline.recipe_file import Publish

SETTINGS = "settings.json"
_ENDING = "image_ending"  # suffix of images in tars; if the settings lack it, each image has the suffix of its format
LISTED = pa.schema([("id", pa.int64()), ("number", pa.int32())])

_ELSEWHERE = "publish elsewhere, with --out"
_REMEDY = f"copy it back, or {_ELSEWHERE}"
_SHARD = re.compile(r"shard-.*\.(parquet|tar)")
_REQUESTS = 16  # concurrent checks of shards, each one small read
_BLOCK, _END = 512, 1024  # bytes: a tar is whole blocks, the last two of them zeros

Shards = Mapping[str, pafs.FileInfo]
"""Shard files, by their path relative to the publication."""


class _Expected(NamedTuple):
    """The contents of a shard by its list: the numbers of listed and of left-out images, smallest and largest id."""

    listed: int
    left_out: int
    smallest: int | None
    largest: int | None


@dataclass(frozen=True)
class Publication:
    """A folder of published shards, or one that is going to be.

    Attributes:
        out: The folder.
        format: `parquet` or `webdataset`.
        subsets: The captions of each subset.
    """

    out: Folder
    format: str
    subsets: Mapping[str, Sequence[str]]

    @property
    def lists(self) -> Folder:
        return self.out.join(LISTS)

    def names(self, numbers: Iterable[int]) -> set[str]:
        """Return the paths of the shards with these numbers, relative to the publication."""
        return {shard_name(subset, number, self.format) for number in numbers for subset in self.subsets}

    def open(self, settings: Publish, tables: Mapping[str, str]) -> Shards:
        """Store the settings of a new publication, or check those of an existing one; return the existing shards.

        Args:
            settings: The settings.
            tables: The names of the published stage tables, by stage.

        Raises:
            UserError: The publication was started with other settings, or by another recipe.
            UserError: Settings or lists are missing or damaged; a shard is damaged, or in no list.
        """
        # A concurrent publication writes settings, list and shards in this order: read them in the reverse order.
        shards = self._existing_shards()
        listed, _ = listed_in(self.lists)
        stored = self.lists.exists(SETTINGS)
        now = {**settings.model_dump(mode="json"), "subsets": list(self.subsets), "tables": tables}
        if self.format == "webdataset":
            now[_ENDING] = IMAGE_ENDING
        if stored:
            self._compare_settings(now)
        elif listed.height:
            raise UserError(f"{self.lists.path}/{SETTINGS}: this file is missing; {_REMEDY}")
        if unlisted := sorted(shards.keys() - self.names(listed["number"].unique())):
            raise UserError(
                f"{self.out.path}/{unlisted[0]} is in no list of {LISTS}: copy that folder too, or {_ELSEWHERE} "
                "(a copy of a shard is to be moved away)"
            )
        if not stored and not self.lists.create_file(SETTINGS, json.dumps(now, indent=1, sort_keys=True).encode()):
            self._compare_settings(now)
        self._check_shards(shards, listed)
        return shards

    def has_earlier_form(self) -> bool:
        """Return whether its tars have the form of an earlier version; call `open` first."""
        return self.format == "webdataset" and _ENDING not in read_json(self.lists, SETTINGS, _REMEDY)

    def left_out(self) -> dict[str, str]:
        """Return the images that could not be published: the reason by id (as a string).

        Raises:
            UserError: A file that lists them is damaged.
        """
        files = [file.base_name for file in self.lists.files() if file.base_name.startswith(LEFT_OUT)]
        remedy = "delete it and the shards of that number, and publish again: they are written again"
        return {id_: reason for name in files for id_, reason in read_json(self.lists, name, remedy).items()}

    def _existing_shards(self) -> Shards:
        files = [file for subset in (TOGETHER, *SUBSETS) for file in self.out.join(subset).files()]
        return {self.out.relative(file.path): file for file in files if _SHARD.fullmatch(file.base_name)}

    def _compare_settings(self, now: Mapping[str, Any]) -> None:
        stored = read_json(self.lists, SETTINGS, _REMEDY)
        if not isinstance(stored.get("tables"), dict) or "subsets" not in stored:
            raise UserError(f"{self.lists.path}/{SETTINGS}: the file is damaged (settings are missing); {_REMEDY}")
        # For a setting that an earlier version lacked, the default describes what that version did.
        before = {**Publish().model_dump(mode="json"), **stored}
        if changed := [name for name in now if name not in ("tables", _ENDING) and before.get(name) != now[name]]:
            name = changed[0]
            raise UserError(
                f"{self.out.path} was published with {name} {before.get(name)}, not {now[name]}: {_ELSEWHERE}"
            )
        # Names are not compared: a step that the recipe has given another name (`as`) has the same table.
        sides = now["tables"], before["tables"]
        common = [table for table in sides[0].values() if table in sides[1].values()]
        if differing := sorted({name for tables in sides for name, table in tables.items() if table not in common}):
            raise UserError(
                f"{self.out.path} has shards of another recipe, whose {', '.join(differing)} computed something else: "
                f"{_ELSEWHERE}"
            )

    def _check_shards(self, shards: Shards, listed: pl.DataFrame) -> None:
        """Compare each existing shard with its list, with one small read per shard."""
        if not shards:
            return
        left_out = pl.Series(list(self.left_out()), dtype=pl.String).cast(pl.Int64, strict=False)
        left_out_rows = pl.col("id").is_in(left_out.to_list()).sum()
        of_number = listed.group_by("number").agg(
            pl.len(), left_out_rows.alias("left_out"), pl.min("id"), pl.max("id").alias("max")
        )
        expected = {name: _Expected(*row) for number, *row in of_number.iter_rows() for name in self.names([number])}
        for number in of_number["number"] if OCR in self.subsets else ():
            name = shard_name(OCR, number, self.format)
            if name in shards:
                holds = read_ocr_rows(self.lists, number, self.format)
                expected[name] = _Expected(holds.rows, 0, holds.smallest, holds.largest)
        with ThreadPoolExecutor(min(len(shards), _REQUESTS)) as threads:
            list(threads.map(self._check_shard, shards.values(), [expected[name] for name in shards]))

    def _check_shard(self, file: pafs.FileInfo, expected: _Expected) -> None:
        with self.out.filesystem.open_input_file(file.path) as opened:
            try:
                if file.path.endswith(".parquet"):
                    _check_footer(pq.ParquetFile(opened).metadata, expected)
                else:
                    _check_tar(opened, file.size)
            except UNREADABLE as error:
                opened.seek(0)
                opened.read(1)  # if the disk or the network failed, this raises
                problem = " ".join(str(error).split())
                raise UserError(
                    f"{file.path}: the shard is damaged ({problem}); delete it and publish again: it is written again"
                ) from error


def listed_in(lists: Folder) -> tuple[pl.DataFrame, str]:
    """Return the images listed so far, columns `id` and `number` in order, and the name of the next list.

    Raises:
        UserError: A list is missing or damaged, or an image is listed twice.
    """
    files = [file for file in lists.files() if file.base_name.endswith(".parquet")]
    expected = [f"{number:06d}.parquet" for number in range(1, len(files) + 2)]
    if lacking := [name for name in expected[:-1] if name not in {file.base_name for file in files}]:
        raise UserError(f"{lists.path}/{lacking[0]}: this list is missing, and what is in which shard; {_REMEDY}")
    if not files:
        return pl.DataFrame(LISTED.empty_table()), expected[-1]
    listed = scan_parts(lists, files, LISTED, _REMEDY).collect()
    refuse_duplicates(listed["id"], f"{lists.path}: the lists have", f"a list was copied; {_ELSEWHERE}")
    return listed, expected[-1]


def refuse_duplicates(ids: pl.Series, where: str, why: str) -> None:
    """Refuse duplicate ids: an image would be published twice.

    Raises:
        UserError: An id occurs twice.
    """
    if ids.n_unique() < len(ids):
        raise UserError(f"{where} image {ids.filter(ids.is_duplicated())[0]} twice; {why}")


def refuse_foreign(missing: pl.DataFrame, index: pl.LazyFrame, where: str) -> None:
    """Refuse to write shards with images that the run does not have: another run was published there, and cut off.

    Args:
        missing: The images of shards that are missing, column `id`.
        index: The images of the run, column `id`.
        where: The publication, for the user.

    Raises:
        UserError: There are such images.
    """
    if missing.height and (foreign := missing.lazy().join(index, on="id", how="anti").collect().height):
        raise UserError(
            f"{where} lacks shards with {foreign:,} images that this run does not have: finish the publication of the "
            f"run that they are from, or {_ELSEWHERE}"
        )


def read_json(folder: Folder, name: str, remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: The file is damaged; `remedy`, a part of the message, says what to do.
    """
    try:
        read = json.loads(folder.read(name))
    except ValueError as error:
        raise UserError(f"{folder.path}/{name}: the file is damaged ({error}); {remedy}") from error
    if not isinstance(read, dict):
        raise UserError(f"{folder.path}/{name}: the file is damaged (no JSON object); {remedy}")
    return read


def _check_footer(footer: pq.FileMetaData, expected: _Expected) -> None:
    """Compare a shard's footer with its list."""
    published = expected.listed - expected.left_out
    if not published <= footer.num_rows <= expected.listed:
        raise DamagedError(f"it has {footer.num_rows:,} images, and its list {published:,}")
    groups = [footer.row_group(number).column(0) for number in range(footer.num_row_groups)]
    ids = [group.statistics for group in groups if group.path_in_schema == "id" and group.is_stats_set]
    bounds = expected.smallest, expected.largest
    if not expected.left_out and ids and (min(s.min for s in ids), max(s.max for s in ids)) != bounds:
        raise DamagedError("it has other images than its list")


def _check_tar(file: pa.NativeFile, size: int) -> None:
    if size < _END or size % _BLOCK or file.read_at(_END, size - _END).strip(b"\0"):
        raise DamagedError("it is cut off")
