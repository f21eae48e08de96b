"""Check an existing publication (settings, lists, shards) before anything is written to it.

`OUT/.publication/` stores which image is in which shard. Without it, nobody knows what is published. So shards that are
in no list are refused, and so are shards that differ from their list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.removals import removals_in, takedowns_in, united
from manifests.shards import FORMATS, LEFT_OUT, LISTS, OCR, SUBSETS, TOGETHER, shard_name
from manifests.storage import Folder
from manifests.tar_shards import IMAGE_ENDING
from pipeline.publishing.lists import ELSEWHERE, REMEDY, listed_in, settings_of_images
from pipeline.publishing.ocr_rows import read_ocr_rows
from pipeline.publishing.shard_checks import Expected, check_shard, expected_by_number
from pipeline.recipe_file import Publish

SETTINGS = "settings.json"
_ENDING = "image_ending"  # suffix of images in tars; if the settings lack it, each image has the suffix of its format

_SHARD = re.compile(r"shard-.*\.(parquet|tar)")
_REQUESTS = 16  # concurrent checks of shards, each one small read

Shards = Mapping[str, pafs.FileInfo]
"""Shard files, by their path relative to the publication."""


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
            raise UserError(f"{self.lists.path}/{SETTINGS}: this file is missing; {REMEDY}")
        self._refuse_unlisted(shards, listed)
        if not stored and not self.lists.create_file(SETTINGS, json.dumps(now, indent=1, sort_keys=True).encode()):
            self._compare_settings(now)
        self._check_shards(shards, listed)
        return shards

    def existing(self) -> Shards:
        """Check a publication without its run; return its shards.

        Raises:
            UserError: Lists are missing or damaged; a shard is damaged, or in no list.
        """
        shards = self._existing_shards()
        listed, _ = listed_in(self.lists)
        self._refuse_unlisted(shards, listed)
        self._check_shards(shards, listed)
        return shards

    def sizes(self) -> dict[str, int]:
        """Return the length in bytes of each shard, by its path in the publication."""
        files = [file for subset in self.subsets for file in self.out.join(subset).files()]
        return {self.out.relative(file.path): file.size for file in files if _SHARD.fullmatch(file.base_name)}

    def published(self) -> pl.DataFrame:
        """Return the images in shards, once all shards are written: columns `id` and `number`."""
        if [*self.subsets] == [OCR]:
            return self._with_text()
        listed, _ = listed_in(self.lists)
        left_out = self._left_out_ids() | removals_in(self.lists).ids
        return listed.filter(~pl.col("id").is_in(sorted(left_out)))

    def count_with_text(self) -> int | None:
        """Return the number of images in the shards of the subset `ocr`; None without that subset."""
        return self._with_text().height if OCR in self.subsets else None

    def has_earlier_form(self) -> bool:
        """Return whether its tars have the form of an earlier version; call `open` first."""
        return self.format == "webdataset" and _ENDING not in read_json(self.lists, SETTINGS, REMEDY)

    def left_out(self) -> dict[str, str]:
        """Return the images that could not be published: the reason by id (as a string).

        Raises:
            UserError: A file that lists them is damaged.
        """
        files = [file.base_name for file in self.lists.files() if file.base_name.startswith(LEFT_OUT)]
        remedy = "delete it and the shards of that number, and publish again: they are written again"
        return {id_: reason for name in files for id_, reason in read_json(self.lists, name, remedy).items()}

    def _left_out_ids(self) -> set[int]:
        ids = pl.Series(list(self.left_out()), dtype=pl.String).cast(pl.Int64, strict=False)
        return set(ids.drop_nulls().to_list())

    def _with_text(self) -> pl.DataFrame:
        """Return the images in the shards of the subset `ocr`."""
        removed = sorted(removals_in(self.lists).ids)
        return self._ocr_rows(self.sizes()).filter(~pl.col("id").is_in(removed))

    def _ocr_rows(self, shards: Collection[str]) -> pl.DataFrame:
        """Return the images that those of `shards` that are of the subset `ocr` had when they were written."""
        listed, _ = listed_in(self.lists)
        numbers = [n for n in listed["number"].unique() if shard_name(OCR, n, self.format) in shards]
        return read_ocr_rows(self.lists, numbers, self.format)

    def _existing_shards(self) -> Shards:
        files = [file for subset in (TOGETHER, *SUBSETS) for file in self.out.join(subset).files()]
        return {self.out.relative(file.path): file for file in files if _SHARD.fullmatch(file.base_name)}

    def _refuse_unlisted(self, shards: Shards, listed: pl.DataFrame) -> None:
        if unlisted := sorted(shards.keys() - self.names(listed["number"].unique())):
            raise UserError(
                f"{self.out.path}/{unlisted[0]} is in no list of {LISTS}: copy that folder too, or {ELSEWHERE} "
                "(a copy of a shard is to be moved away)"
            )

    def _compare_settings(self, now: Mapping[str, Any]) -> None:
        stored = settings_of_images(read_json(self.lists, SETTINGS, REMEDY), self.out.path)
        if not isinstance(stored.get("tables"), dict) or "subsets" not in stored:
            raise UserError(f"{self.lists.path}/{SETTINGS}: the file is damaged (settings are missing); {REMEDY}")
        # For a setting that an earlier version lacked, the default describes what that version did.
        before = {**Publish().model_dump(mode="json"), **stored}
        if changed := [name for name in now if name not in ("tables", _ENDING) and before.get(name) != now[name]]:
            name = changed[0]
            raise UserError(
                f"{self.out.path} was published with {name} {before.get(name)}, not {now[name]}: {ELSEWHERE}"
            )
        # Names are not compared: a step that the recipe has given another name (`as`) has the same table.
        sides = now["tables"], before["tables"]
        common = [table for table in sides[0].values() if table in sides[1].values()]
        if differing := sorted({name for tables in sides for name, table in tables.items() if table not in common}):
            raise UserError(
                f"{self.out.path} has shards of another recipe, whose {', '.join(differing)} computed something else: "
                f"{ELSEWHERE}"
            )

    def _check_shards(self, shards: Shards, listed: pl.DataFrame) -> None:
        """Compare each existing shard with its list, with one small read per shard."""
        if not shards:
            return
        takedowns = takedowns_in(self.lists)
        removed = united(takedown.removals for takedown in takedowns if takedown.finished).ids
        leaving = united(takedown.removals for takedown in takedowns if not takedown.finished).ids
        stays = ~pl.col("id").is_in(sorted(removed))
        of_lists = expected_by_number(listed.filter(stays), leaving | self._left_out_ids())
        expected = {name: contents for number, contents in of_lists.items() for name in self.names([number])}
        if OCR in self.subsets:
            of_ocr = expected_by_number(self._ocr_rows(shards).filter(stays), leaving)
            names = [name for name in shards if name.startswith(f"{OCR}/")]
            expected |= dict.fromkeys(names, Expected())
            expected |= {shard_name(OCR, number, self.format): contents for number, contents in of_ocr.items()}
        contents_of = [expected.get(name, Expected()) for name in shards]
        with ThreadPoolExecutor(min(len(shards), _REQUESTS)) as threads:
            list(threads.map(check_shard, [self.out] * len(shards), shards.values(), contents_of))


_NO_CLIPS = "this works on images only; drop clips by a rule of their run, and publish it into another folder"


def stored_publication(out: Folder, where: str) -> Publication:
    """Return the publication in a folder, without its run.

    Args:
        out: The folder.
        where: Its path or URL, for the user.

    Raises:
        UserError: Nothing is published there, or its settings are damaged.
    """
    lists = out.join(LISTS)
    if not lists.exists(SETTINGS):
        raise UserError(f"{where}: nothing is published there: it has no {LISTS}/{SETTINGS}")
    settings = settings_of_images(read_json(lists, SETTINGS, "copy it back"), where, _NO_CLIPS)
    subsets = settings.get("subsets")
    names = subsets if isinstance(subsets, list) else []
    if settings.get("format") not in FORMATS or not names or any(n not in (TOGETHER, *SUBSETS) for n in names):
        raise UserError(f"{lists.path}/{SETTINGS}: the file is damaged (settings are missing); copy it back")
    return Publication(out, settings["format"], dict.fromkeys(names, ()))


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
            f"run that they are from, or {ELSEWHERE}"
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
