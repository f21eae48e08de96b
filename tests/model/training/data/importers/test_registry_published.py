"""All formats together, each with a small data set as it is published: what becomes of it, and of broken values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.boxes import to_thousandths
from core.errors import BadSampleError, UserError
from core.records import Record
from manifests.renderers import RENDERERS
from model.training.data.importers.registry import all_formats, sniff
from tests.model.training.data.importers.importing import Imported, import_entries, import_source
from tests.model.training.data.importers.published.fixtures import PUBLISHED
from tests.model.training.data.importers.published.layouts import write_film

NAMES = list(PUBLISHED)

WRITTEN_BACK: Mapping[str, str] = {
    "chat": "openai",
    "llava": "llava",
    "penguin-recap-i": "llava",
    "penguin-recap-v": "llava",
    "valley": "llava",
    "videollama3": "videollama3",
}
"""Formats whose rows come back from a form of `--as`."""

NOT_WRITTEN_BACK: Mapping[str, str] = {
    "captions alone, so the question is ours": "captioned-tars finevideo imagebind-llm internvid koala36m lavila "
    "minigpt4 openvid panda70m sharegpt4video vl3syn7m webvid",
    "a question, its options and an index in fields of their own": "egoschema nextqa",
    "questions and answers in fields of their own": "docvqa infovqa timeit videochat videochat2 videochatgpt",
    "spans of events, so the question is a template": "activitynet avtime charades coin didemo ego4d-nlq goalstep "
    "hirest nextgqa qvhighlights queryd timelens vitt youcook2",
    "marks in the text, which were filled with times": "et-instruct momentor vtimellm",
    "streams on another clock, or in other words": "ego4d livecc llovi mmduet streamo videollm-online",
    "boxes in pixels, which a text has in thousandths": "coco flickr30k-entities grand mdvp objects365 osprey refcoco "
    "sa-1b textocr visual-genome",
    "pages, charts or words, which no form has": "blip3-ocr chart-to-text idl pdfa",
}
"""Why formats have no way back: no form of `--as` has what their rows have."""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4")


def imported(name: str, folder: Path, film: Path) -> Imported:
    """Import the fixture of a format, with its media."""
    published = PUBLISHED[name]
    source, options = published.write_rows(folder)
    published.write_media(folder / "media", film)
    return import_source(name, source, folder / "media", folder / "out", options=options)


def test_each_format_has_a_fixture_and_a_way_back_or_a_reason() -> None:
    without = [name for names in NOT_WRITTEN_BACK.values() for name in names.split()]
    assert list(all_formats()) == NAMES
    assert sorted([*WRITTEN_BACK, *without]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_fixture_is_imported_whole_with_its_media(name: str, tmp_path: Path, film: Path) -> None:
    result = imported(name, tmp_path, film)
    assert not result.rejected
    assert len(result.records) == PUBLISHED[name].records
    assert (result.report.media["missing"], result.report.media["not looked at"]) == (0, 0)
    assert name == "chat" or result.report.media["present"]
    for record in result.records:
        assert_boxes_are_in_the_text(record)


def assert_boxes_are_in_the_text(record: Record) -> None:
    """Check that the text has each box that was published, in thousandths."""
    text = "\n".join(turn.text for turn in record.turns)
    for turn in record.turns:
        for region in turn.regions:
            medium = record.medium(region.media)
            sides = (medium.width or 1, medium.height or 1)
            box = ",".join(map(str, to_thousandths(region.box, region.system, *sides)))
            assert f"[{box}]" in text


@pytest.mark.parametrize("name", NAMES)
def test_auto_takes_the_fixture_for_what_it_is(name: str, tmp_path: Path, film: Path) -> None:
    published = PUBLISHED[name]
    source, options = published.write_rows(tmp_path)
    published.write_media(tmp_path / "media", film)
    if published.auto == "refused":
        with pytest.raises(UserError, match=r"no known format|it may be .* or "):
            sniff(source, options)
    else:
        assert sniff(source, options).name == (published.auto or name)


@pytest.mark.parametrize("name", WRITTEN_BACK)
def test_rows_come_back_from_their_form(name: str, tmp_path: Path, film: Path) -> None:
    assert is_form_of_rows(WRITTEN_BACK[name], imported(name, tmp_path, film), PUBLISHED[name].rows)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WRITTEN_BACK])
def test_no_form_has_the_rows_of_the_others(name: str, tmp_path: Path, film: Path) -> None:
    result = imported(name, tmp_path, film)
    assert not [form for form in RENDERERS if is_form_of_rows(form, result, PUBLISHED[name].rows)]


def is_form_of_rows(form: str, result: Imported, rows: Sequence[Any]) -> bool:
    """Return whether all keys that records have in a form have the value that they have in the rows, but for ids."""
    entries = [rendered(record, form) for record in result.records]
    if len(entries) != len(rows) or not all(isinstance(row, dict) for row in rows) or None in entries:
        return False
    shared = [{key: of_one(row).get(key) for key in entry or {}} for entry, row in zip(entries, rows, strict=True)]
    return entries == shared


def rendered(record: Record, form: str) -> dict[str, Any] | None:
    """The record in a form, without its id; None if the form cannot say it."""
    try:
        return of_one(RENDERERS[form](record))
    except BadSampleError:
        return None


def of_one(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without its id. One medium is the same as a list of one."""
    lists = {key: entry[key] for key in ("image", "video") if isinstance(entry.get(key), list)}
    single = {key: listed[0] for key, listed in lists.items() if len(listed) == 1}
    return {key: value for key, value in {**entry, **single}.items() if key != "id"}


@pytest.mark.parametrize("form", ["llava", "videollama3"])
@pytest.mark.parametrize("name", NAMES)
def test_a_form_keeps_texts_times_and_media(name: str, form: str, tmp_path: Path, film: Path) -> None:
    records = [record for record in imported(name, tmp_path, film).records if rendered(record, form)]
    if not records:
        assert form == "llava" or name == "chat"  # its text has <image> in it
        return
    (tmp_path / "back").mkdir()
    back = import_entries(tmp_path / "back", form, [RENDERERS[form](record) for record in records])
    assert not back.rejected
    assert [said(record) for record in back.records] == [said(record) for record in records]
    assert [rendered(record, form) for record in back.records] == [rendered(record, form) for record in records]


def said(record: Record) -> list[tuple[Any, ...]]:
    """Who says what with which media, and when on the clock of the file."""
    offset = record.media[0].offset if record.media else 0.0
    return [
        (
            turn.role,
            [(part.text, part.media and record.medium(part.media).path) for part in turn.parts],
            None if turn.time is None else round(turn.time + offset, 6),
        )
        for turn in record.turns
    ]
