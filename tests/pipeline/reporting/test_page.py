"""Pages are written whole, where they are asked for; texts are made visible."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from manifests.storage import Folder
from pipeline.reporting.page import LONGEST_TEXT, change, check_target, environment, number, write


def test_page_is_written_to_a_path_and_replaces_it(tmp_path: Path) -> None:
    where = tmp_path / "new" / "page.html"
    assert write(str(where), "<p>é") == 5
    write(str(where), "<p>b")
    assert where.read_text() == "<p>b"
    assert [path.name for path in where.parent.iterdir()] == ["page.html"]


def test_page_is_written_to_an_object_store(bucket: str) -> None:
    write(f"{bucket}/pages/page.html", "<p>a")
    assert Folder.at(f"{bucket}/pages").read("page.html") == b"<p>a"


def test_path_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name a file"):
        write(f"{tmp_path}/", "<p>")


def test_every_printed_text_is_escaped_cut_and_visible() -> None:
    template = environment().from_string('<a title="{{ text }}">{{ text }}</a>')
    shown = template.render(text='"<b>\x1b\u202e' + "x" * 9 * LONGEST_TEXT)
    begin = "&#34;&lt;b&gt;\ufffd\ufffdxx"
    assert shown.startswith(f'<a title="{begin}')
    assert f">{begin}" in shown
    assert len(shown) < 2 * LONGEST_TEXT + 100


@pytest.mark.parametrize(
    ("value", "text"), [(12345, "12,345"), (0.45678, "0.4568"), (2.0, "2"), (None, "–"), (123456.7, "123,457")]
)
def test_numbers_are_formatted_for_people(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(1300, "+1,200"), (65, "−35"), (100, "±0")])
def test_changes_have_a_sign(value: int, text: str) -> None:
    assert change(value, 100) == text


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("s3://bucket", "such as s3://bucket/report.html"),
        ("", "such as report.html"),
        ("http://h/a.html", "only be read"),
    ],
)
def test_place_that_is_no_file_is_refused(
    where: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        write(where, "a")
    with pytest.raises(UserError, match=message):
        check_target(where)
    assert not list(tmp_path.iterdir())


def test_place_where_a_page_can_be_written_is_accepted(tmp_path: Path, bucket: str) -> None:
    check_target(f"{tmp_path}/new/folder/page.html")
    check_target(f"{bucket}/page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "message"), [("file/a.html", "is not a folder"), ("folder", "is a folder, not a")])
def test_target_that_is_no_file_is_refused_beforehand(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=message):
        check_target(f"{tmp_path}/{name}")
