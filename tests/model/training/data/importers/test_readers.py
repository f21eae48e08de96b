"""Rows out of files of every kind, and what ends an import instead of losing rows."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import UserError
from model.training.data.importers import readers
from model.training.data.importers.format import Row, Unreadable
from model.training.data.importers.readers import LINE_INDEX, OTHER_FILES, read_rows
from tests.model.training.data.importers.importing import import_source

ROWS = [{"id": 1, "n": 1.5, "t": "ü"}, {"id": 2, "n": None, "t": ["a"]}]


def values(folder: Path, name: str, content: str | bytes, *inside: str) -> list[Any]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return [row.value for row in read_rows(folder / name, inside)]


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", "\ufeff" + json.dumps(ROWS, indent=1)),
        ("a.json", LINES),
        ("a.jsonl", "\ufeff" + LINES.replace("\n", "\r\n\n")),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        ("a.jsonl.bz2", bz2.compress(LINES.encode())),
        ("a.jsonl.zst", pa.compress(LINES.encode(), "zstd", asbytes=True)),
    ],
    ids=[
        "array",
        "bom and indent",
        "lines in .json",
        "bom and empty lines",
        "gzip",
        "bzip2",
        "zstd",
    ],
)
def test_json_of_every_kind_gives_the_same_rows(tmp_path: Path, name: str, content: Any) -> None:
    if name.endswith(".zst"):
        with pa.CompressedOutputStream(str(tmp_path / name), "zstd") as out:
            out.write(LINES.encode())
        content = (tmp_path / name).read_bytes()
    assert values(tmp_path, name, content) == ROWS


def test_object_gives_its_keys_and_values(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"v_1": {"duration": 5}, "v_2": {"duration": 6.5}}')
    assert list(read_rows(tmp_path / "a.json")) == [
        Row({"duration": 5}, "a.json", 1, "v_1"),
        Row({"duration": 6.5}, "a.json", 2, "v_2"),
    ]


def test_rows_inside_of_an_object_are_found(tmp_path: Path) -> None:
    by_id = '{"version": 1, "taxonomy": [1], "database": {"x": {"a": 1}}}'
    listed = '{"info": {"rows": []}, "data": [{"a": 1}, {"a": 2}]}'
    assert values(tmp_path, "a.json", by_id, "data", "database") == [{"a": 1}]
    assert values(tmp_path, "b.json", listed, "data", "database") == [{"a": 1}, {"a": 2}]


def test_last_line_that_is_a_list_of_messages_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[{"role": "user"}]\n[{"role": "assistant"}]\n')
    assert [row.value for row in read_rows(tmp_path / "a.jsonl")] == [[{"role": "user"}], [{"role": "assistant"}]]


def test_last_line_that_is_a_list_is_the_index_of_livecc(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES + "[0, 31]")
    notes: Counter[str] = Counter()
    assert [row.value for row in read_rows(tmp_path / "a.jsonl", (), notes)] == ROWS
    assert notes == {LINE_INDEX: 1}


def test_last_line_with_a_list_of_other_things_is_a_row(tmp_path: Path) -> None:
    assert values(tmp_path, "a.jsonl", '["u1", 1.0]\n["u1", 2.0]\n') == [["u1", 1.0], ["u1", 2.0]]


def test_list_elsewhere_is_a_row(tmp_path: Path) -> None:
    assert values(tmp_path, "a.jsonl", "[0, 31]\n" + LINES) == [[0, 31], *ROWS]


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"[" * 200_000, b"1" * 5000])
def test_broken_line_is_one_unreadable_row(tmp_path: Path, line: bytes) -> None:
    first, broken, last = values(tmp_path, "a.jsonl", b"{}\n" + line + b"\n{}\n")
    assert (first, last) == ({}, {})
    assert isinstance(broken, Unreadable)
    assert broken.reason.startswith("no JSON: ")


def test_odd_values_of_an_array_are_those_of_json_lines(tmp_path: Path) -> None:
    rows = ['{"a": NaN}', '{"a": 100000000000000000000000}', '{"a": "\\ud800"}', '{"a": 1, "a": 2}']
    listed = values(tmp_path, "a.json", f"[{','.join(rows)}]")
    assert repr(listed) == repr(values(tmp_path, "a.jsonl", "\n".join(rows)))
    assert listed[1:] == [{"a": 10**23}, {"a": "\ud800"}, {"a": 2}]


def test_byte_that_is_no_utf8_spoils_its_row_only(tmp_path: Path) -> None:
    chat = '{"prompt": "What?", "response": "%s"}'
    (tmp_path / "a.json").write_bytes(
        f"[{chat % 'It.'}, {chat % '?'}, {chat % 'So.'}]".encode().replace(b'"?"', b'"\xff"')
    )
    imported = import_source("chat", tmp_path / "a.json")
    assert [record.turns[1].text for record in imported.records] == ["It.", "So."]
    assert imported.reasons == ["not valid Unicode: U+DCFF at character 0 is half of one"]


@pytest.mark.parametrize(
    "content", ['[{"a": 1}, {"a": ', '[{"a": 1}, nope]', '[{"a": 1}] [2]', '{"a": 1, "b"', '"text"', ""]
)
def test_broken_json_ends_the_import(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"no JSON|nothing of the rest"):
        values(tmp_path, "a.json", content)


def test_row_that_would_fill_the_memory_ends_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LARGEST", 1 << 20)
    row = json.dumps({"a": "x" * 400_000})
    assert len(values(tmp_path, "a.json", f"[{','.join([row] * 9)}]")) == 9, "a file is larger than a row may be"
    for name, content in (("b.json", f'[{{"a": "{"x" * (2 << 20)}"}}]'), ("b.jsonl", "x" * (2 << 20))):
        with pytest.raises(UserError, match="of more than 1 MiB: it would fill the memory"):
            values(tmp_path, name, content)


def test_csv_and_tsv_give_texts_by_column(tmp_path: Path) -> None:
    text = 'videoid,name\n1,"a, ""b""\nc"\n2\n3,None\n'
    first, broken, last = values(tmp_path, "a.csv", "\ufeff" + text)
    assert (first, last) == ({"videoid": "1", "name": 'a, "b"\nc'}, {"videoid": "3", "name": "None"})
    assert broken.reason == "no CSV: 1 fields under 2 columns"
    assert values(tmp_path, "b.csv", "url\tcaption\nu\ta, b\n") == [{"url": "u", "caption": "a, b"}]
    assert csv.field_size_limit() == 131072


def test_text_gives_a_row_for_each_line(tmp_path: Path) -> None:
    assert values(tmp_path, "a.txt", "ABC 1.0 2.0##a\r\n\nb\n") == [{"text": "ABC 1.0 2.0##a"}, {"text": "b"}]


def test_tar_gives_a_row_for_each_sample(tmp_path: Path) -> None:
    members = {"x/1.json": b'{"a": 1}', "x/1.jpg": b"\xff\xd8", "x/2.txt": b"words", "x/3.json": b"{"}
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("x/4.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    first, second, broken = read_rows(tmp_path / "a.tar")
    assert (first.key, first.value) == ("x/1", {"json": {"a": 1}, "jpg": b"\xff\xd8"})
    assert (second.key, second.value) == ("x/2", {"txt": "words"})
    assert isinstance(broken.value, Unreadable)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:700])
    with pytest.raises(UserError, match="broken tar"):
        list(read_rows(tmp_path / "cut.tar"))


def test_pickle_is_refused_unread(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="a pickle can run code and is not read: load it where you trust it"):
        list(read_rows(tmp_path / "a.pkl"))
    assert not (tmp_path / "ran").exists()


def test_folder_is_read_file_by_file_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in/b").mkdir(parents=True)
    (tmp_path / "secret.jsonl").write_text('{"secret": 1}')
    (tmp_path / "in/b/2.jsonl").write_text('{"a": 2}')
    (tmp_path / "in/1.json").write_text('[{"a": 1}]')
    (tmp_path / "in/readme.md").write_text("# words")
    (tmp_path / "in/.set.import-1").mkdir()
    (tmp_path / "in/.set.import-1/records-00000.jsonl").write_text('{"a": 3}')
    (tmp_path / "in/3.jsonl").symlink_to(tmp_path / "secret.jsonl")
    notes: Counter[str] = Counter()
    assert [(row.file, row.value) for row in read_rows(tmp_path / "in", (), notes)] == [
        ("1.json", {"a": 1}),
        ("b/2.jsonl", {"a": 2}),
    ]
    assert notes == {OTHER_FILES: 2}


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.bz2", bz2.compress)])
def test_packed_file_that_breaks_off_ends_the_import(tmp_path: Path, name: str, pack: Any) -> None:
    packed = pack(LINES.encode())
    assert values(tmp_path, name, packed + packed) == ROWS + ROWS, "files that were joined are read to their end"
    with pytest.raises(UserError, match=r"cannot be read: .*; copy it again"):
        values(tmp_path, name, packed[:-12])


@pytest.mark.parametrize(("name", "reason"), [("a.xml", "an unknown kind of file"), ("gone.json", "no such file")])
def test_source_that_cannot_be_read_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "a.xml").touch()
    with pytest.raises(UserError, match=reason):
        list(read_rows(tmp_path / name))
