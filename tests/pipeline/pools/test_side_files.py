"""Texts beside the images of a tar reach the image that they are about, whatever dots its name has."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from manifests import open_run
from manifests.run import index_table
from manifests.storage import Folder
from pipeline.execution.runner import prepare
from pipeline.pools import pool_of
from pipeline.pools.listing import shard_table, shards_of
from pipeline.recipe import parse_recipe

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]
Member = str | tuple[str, bytes]


def picture(shade: int = 0, format_: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), (shade, 90, 90)).save(data, format_)
    return data.getvalue()


def tar(path: Path, members: Sequence[Member]) -> Path:
    """Members that are only named are images, or texts that say their own name."""
    with tarfile.open(path, "w") as archive:
        for number, member in enumerate(members):
            name, data = member if isinstance(member, tuple) else (member, b"")
            if not data:
                is_text = name.lower().endswith((".txt", ".caption", ".text", ".cls"))
                data = name.encode() if is_text else picture(number)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def texts(path: Path, members: Sequence[Member], **settings: str) -> dict[str, str | None]:
    """The alt text of each image."""
    return {key: text for key, (text, _) in rows_of(path, members, **settings).items()}


def rows_of(path: Path, members: Sequence[Member], **settings: str) -> dict[str, tuple[str | None, str | None]]:
    """The alt text and the URL of each image."""
    pool = pool_of(tars=str(tar(path / "0.tar", members)), **settings)
    listing = pool.listing()
    rows = pool.index(listing.root, listing.shards).to_pylist()
    return {row["key"]: (row["alt_text"], row["url"]) for row in rows}


PAIRS: dict[str, tuple[list[Member], dict[str, str | None]]] = {
    "versions": (
        ["22.05.png", "22.05.txt", "22.06.png", "22.06.txt"],
        {"22.05.png": "22.05.txt", "22.06.png": "22.06.txt"},
    ),
    "texts first": (
        ["22.05.txt", "22.06.txt", "22.06.png", "22.05.png"],
        {"22.05.png": "22.05.txt", "22.06.png": "22.06.txt"},
    ),
    "coordinates": (
        ["48.137_11.575.jpg", "48.137_11.576.jpg", "48.137_11.575.txt", "48.137_11.576.txt"],
        {"48.137_11.575.jpg": "48.137_11.575.txt", "48.137_11.576.jpg": "48.137_11.576.txt"},
    ),
    "one without a text": (
        ["22.05.png", "22.05.txt", "22.06.png"],
        {"22.05.png": "22.05.txt", "22.06.png": None},
    ),
    "a text without its image": (
        ["22.05.png", "22.05.txt", "22.06.png", "22.07.txt"],
        {"22.05.png": "22.05.txt", "22.06.png": None},
    ),
    "two views of one sample": (
        ["c0.left.jpg", "c0.right.jpg", "c0.txt", "c1.txt", "c1.right.jpg", "c1.left.jpg"],
        {"c0.left.jpg": "c0.txt", "c0.right.jpg": "c0.txt", "c1.left.jpg": "c1.txt", "c1.right.jpg": "c1.txt"},
    ),
    "a view with a text of its own": (
        ["c0.left.jpg", "c0.right.jpg", "c0.txt", "c0.left.txt"],
        {"c0.left.jpg": "c0.left.txt", "c0.right.jpg": "c0.txt"},
    ),
    "two views and a text of a double ending": (
        ["c0.left.jpg", "c0.right.jpg", "c0.caption.txt"],
        {"c0.left.jpg": "c0.caption.txt", "c0.right.jpg": "c0.caption.txt"},
    ),
    "double ending": (
        ["b4.JPG", "b4.caption.txt", "b5.caption.txt", "b5.jpg"],
        {"b4.JPG": "b4.caption.txt", "b5.jpg": "b5.caption.txt"},
    ),
    "double ending beside dotted names": (
        ["22.05.png", "22.05.caption.txt", "22.06.png", "22.06.txt"],
        {"22.05.png": "22.05.caption.txt", "22.06.png": "22.06.txt"},
    ),
    "views of dotted samples": (
        ["22.05.left.png", "22.05.right.png", "22.05.txt", "22.06.left.png", "22.06.right.png", "22.06.txt"],
        {
            "22.05.left.png": "22.05.txt",
            "22.05.right.png": "22.05.txt",
            "22.06.left.png": "22.06.txt",
            "22.06.right.png": "22.06.txt",
        },
    ),
    "a view of a missing dotted sample": (
        ["22.05.left.png", "22.05.txt", "22.06.left.png", "22.07.txt"],
        {"22.05.left.png": "22.05.txt", "22.06.left.png": None},
    ),
    "image endings and text endings on dotted names": (
        ["22.05.orig.png", "22.05.en.txt", "22.06.orig.png", "22.06.en.txt", "22.08.orig.png", "22.07.en.txt"],
        {"22.05.orig.png": "22.05.en.txt", "22.06.orig.png": "22.06.en.txt", "22.08.orig.png": None},
    ),
    "jpg.webp": (
        ["22.05.jpg.webp", "22.05.txt", "22.06.jpg.webp", "22.06.jpg.txt"],
        {"22.05.jpg.webp": "22.05.txt", "22.06.jpg.webp": "22.06.jpg.txt"},
    ),
    "full names": (
        ["a.jpg", "a.jpg.txt", "a.png", "a.png.txt", "b.jpg", "b.jpg.txt", "b.png"],
        {"a.jpg": "a.jpg.txt", "a.png": "a.png.txt", "b.jpg": "b.jpg.txt", "b.png": None},
    ),
    "an image and a view of it": (
        ["c0.jpg", "c0.left.jpg", "c0.txt", "22.05.jpg", "22.05.thumb.jpg", "22.05.txt"],
        {"c0.jpg": "c0.txt", "c0.left.jpg": "c0.txt", "22.05.jpg": "22.05.txt", "22.05.thumb.jpg": "22.05.txt"},
    ),
    "a text of a missing image elsewhere": (
        ["22.05.png", "22.05.txt", "23.06.png", "23.07.txt"],
        {"22.05.png": "22.05.txt", "23.06.png": None},
    ),
    "a text of a missing image alone": (["22.05.png", "22.06.txt"], {"22.05.png": None}),
    "words of a name": (["St. Paul.jpg", "St. Peter.txt"], {"St. Paul.jpg": None}),
    "nested names": (
        ["1.jpg", "1.5.jpg", "1.5.txt", "1.6.jpg"],
        {"1.jpg": None, "1.5.jpg": "1.5.txt", "1.6.jpg": None},
    ),
    "both ways in one tar": (
        ["22.05.png", "22.05.txt", "c0.left.jpg", "c0.txt", "a.jpg", "a.txt"],
        {"22.05.png": "22.05.txt", "c0.left.jpg": "c0.txt", "a.jpg": "a.txt"},
    ),
    "dotted folder": (
        ["set.v1/0.jpg", "set.v1/0.txt", "set.v2/0.jpg", "set.v2/0.txt"],
        {"set.v1/0.jpg": "set.v1/0.txt", "set.v2/0.jpg": "set.v2/0.txt"},
    ),
    "dotted folder and name": (
        ["set.v1/22.05.jpg", "set.v1/22.05.txt", "set.v1/22.06.jpg"],
        {"set.v1/22.05.jpg": "set.v1/22.05.txt", "set.v1/22.06.jpg": None},
    ),
    "upper case": (
        ["b.0.JPG", "b.0.TXT", "b.1.Png", "b.1.Caption"],
        {"b.0.JPG": "b.0.TXT", "b.1.Png": "b.1.Caption"},
    ),
    "no dot": (["picture", "picture.txt", "other.png"], {"picture": "picture.txt", "other.png": None}),
    "hidden": (
        [".a.jpg", ".a.txt", ".b.jpg", ".c.txt"],
        {".a.jpg": ".a.txt", ".b.jpg": None},
    ),
    "three dots": (
        ["a.b.c.png", "a.b.c.txt", "a.b.d.png", "a.b.d.txt"],
        {"a.b.c.png": "a.b.c.txt", "a.b.d.png": "a.b.d.txt"},
    ),
    "DOI": (
        ["10.1000/x.12.jpg", "10.1000/x.12.txt", "10.1000/x.13.txt", "10.1000/x.13.jpg"],
        {"10.1000/x.12.jpg": "10.1000/x.12.txt", "10.1000/x.13.jpg": "10.1000/x.13.txt"},
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_side_file_text_belongs_to_its_image(tmp_path: Path, kind: str) -> None:
    members, said = PAIRS[kind]
    assert texts(tmp_path, members) == said


def about(**values: object) -> bytes:
    return json.dumps(values).encode()


def test_json_named_after_the_full_image_name_is_read(tmp_path: Path) -> None:
    members: list[Member] = ["a.jpg", "a.png", ("a.jpg.json", about(text="J")), ("a.png.json", about(text="P"))]
    assert texts(tmp_path, members) == {"a.jpg": "J", "a.png": "P"}


def test_views_have_their_own_json_and_a_common_text(tmp_path: Path) -> None:
    members: list[Member] = ["c.l.jpg", "c.r.jpg", "c.caption.txt", "d.jpg", "d.l.jpg", "d.txt"]
    for name in ("c.l", "c.r", "d"):
        members.append((f"{name}.json", about(url=f"http://x/{name}")))
    assert rows_of(tmp_path, members) == {
        "c.l.jpg": ("c.caption.txt", "http://x/c.l"),
        "c.r.jpg": ("c.caption.txt", "http://x/c.r"),
        "d.jpg": ("d.txt", "http://x/d"),
        "d.l.jpg": ("d.txt", "http://x/d"),
    }


def test_notes_of_a_view_come_before_those_of_all(tmp_path: Path) -> None:
    members: list[Member] = ["c.l.jpg", "c.r.jpg", "c.txt", ("c.l.json", about(url="l")), ("c.json", about(url="c"))]
    members += [("c.l.txt", b"ein Fuchs")]
    assert rows_of(tmp_path, members) == {"c.l.jpg": ("ein Fuchs", "l"), "c.r.jpg": ("c.txt", "c")}


NULS = {
    "little": ("hello Füchs".encode("utf-16-le"), "hello Füchs", "utf-16"),
    "big": ("hello Füchs".encode("utf-16-be"), "hello Füchs", "utf-16"),
    "some Cyrillic": ("a cat, кот, on a mat".encode("utf-16-le"), "a cat, кот, on a mat", "utf-16"),
    "one": (b"a fox\0 runs away", "a fox\0 runs away", "unknown"),
    "Windows": (b"ein F\xfcchs\0 runs away", "ein Füchs\0 runs away", "windows-1252"),
}


@pytest.mark.parametrize("kind", NULS)
def test_text_with_nuls_is_not_taken_for_utf8(tmp_path: Path, kind: str) -> None:
    data, text, encoding = NULS[kind]
    assert texts(tmp_path, ["a.png", ("a.txt", data)]) == {"a.png": text}
    pool = pool_of(tars=str(tmp_path / "0.tar"))
    listing = pool.listing()
    rows = pool.index(listing.root, listing.shards)
    assert rows["text_encoding"].to_pylist() == [encoding]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_texts_with_byte_order_marks_are_decoded(tmp_path: Path, encoding: str) -> None:
    members: list[Member] = ["a.png", ("a.txt", "ein Füchs 🦊".encode(encoding)), "b.png"]
    members += [("b.json", json.dumps({"text": "ein Füchs 🦊"}, ensure_ascii=False).encode(encoding))]
    assert texts(tmp_path, members) == {"a.png": "ein Füchs 🦊", "b.png": "ein Füchs 🦊"}


def test_big_endian_text_is_decoded(tmp_path: Path) -> None:
    members: list[Member] = ["a.png", ("a.txt", b"\xfe\xff" + "ein Füchs".encode("utf-16-be"))]
    assert texts(tmp_path, members) == {"a.png": "ein Füchs"}


SIDE_FILES: dict[str, tuple[list[Member], str | None]] = {
    "txt": (["a.png", "a.txt"], "a.txt"),
    "TXT": (["a.png", "a.TXT"], "a.TXT"),
    "text": (["a.png", "a.text"], "a.text"),
    "caption": (["a.png", "a.caption"], "a.caption"),
    "cls is no text": (["a.png", "a.cls"], None),
    "JSON text": (["a.png", ("a.json", about(text="of JSON"))], "of JSON"),
    "JSON TEXT": (["a.png", ("a.json", about(TEXT="of JSON"))], "of JSON"),
    "JSON list": (["a.png", ("a.json", about(captions=["", "of JSON", "x"]))], "of JSON"),
    "JSON alt": (["a.png", ("a.JSON", about(alt="of JSON"))], "of JSON"),
    "JSON of two": (["a.png", ("a.json", about(text="", caption="of JSON"))], "of JSON"),
    "a text before JSON": (["a.png", ("a.json", about(text="of JSON")), "a.txt"], "a.txt"),
    "an empty text": (["a.png", ("a.txt", b" "), ("a.json", about(text="of JSON"))], "of JSON"),
    "txt before caption": (["a.png", "a.caption", "a.txt"], "a.txt"),
}


@pytest.mark.parametrize("kind", SIDE_FILES)
def test_alt_text_is_read_from_side_files(tmp_path: Path, kind: str) -> None:
    members, said = SIDE_FILES[kind]
    assert texts(tmp_path, members) == {"a.png": said}


def test_alt_text_named_in_the_pool_is_the_only_one(tmp_path: Path) -> None:
    members: list[Member] = ["a.png", "a.txt", "a.de", ("a.json", about(text="of JSON", titel="ein Titel"))]
    members[2] = ("a.de", b"ein Fuchs")
    assert texts(tmp_path, members, alt_text="de") == {"a.png": "ein Fuchs"}
    assert texts(tmp_path, members, alt_text=".de") == {"a.png": "ein Fuchs"}
    assert texts(tmp_path, members, alt_text="titel") == {"a.png": "ein Titel"}


def test_index_command_reads_names_with_dots(tmp_path: Path, vl3syn: Vl3syn) -> None:
    names = [f"22.{number:02d}" for number in range(5, 10)]
    members: list[Member] = []
    for name in names:
        url = {"url": f"https://example.org/{name}.png", "license": f"licence of {name}", "sha256": name}
        members += [f"{name}.png", f"{name}.txt", (f"{name}.json", about(**url))]
    tar(tmp_path / "0.tar", members)
    done = vl3syn("index", "--tars", tmp_path / "0.tar", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("alt text") == 1
    assert "pool: alt text from .txt\n" in done.stderr
    rows = open_run(tmp_path / "run").index.scan().sort("key").collect().to_dicts()
    assert [(row["key"], row["alt_text"], row["url"], row["license"], row["sha256"]) for row in rows] == [
        (f"{name}.png", f"{name}.txt", f"https://example.org/{name}.png", f"licence of {name}", name) for name in names
    ]


def as_read_before(rows: pa.Table) -> pa.Table:
    """Index rows as the first reader of tars made them: all that share their first dot have the last one's texts."""
    table = rows.to_pylist()
    last = {row["key"].partition(".")[0]: row for row in table}
    about_image = ("alt_text", "url", "sha256", "license")
    wrong = [{**row, **{name: last[row["key"].partition(".")[0]][name] for name in about_image}} for row in table]
    return pa.Table.from_pylist(wrong, schema=rows.schema)


@pytest.mark.parametrize("revision", ["", "changed"])
def test_index_of_an_earlier_version_is_repaired(tmp_path: Path, vl3syn: Vl3syn, revision: str) -> None:
    for name, keys in (("0", ["22.05", "22.06", "22.07"]), ("1", ["plain", "1.5"])):
        members: list[Member] = []
        for key in keys:
            members += [f"{key}.png", f"{key}.txt", (f"{key}.json", about(url=f"http://x/{key}"))]
        tar(tmp_path / f"{name}.tar", members)
    pool, run = pool_of(tars=str(tmp_path)), tmp_path / "run"
    prepare(parse_recipe({"pool": {"tars": str(tmp_path)}}, "test"), str(run))
    table, listing = index_table(Folder.at(run)), pool.listing(leave_out=Folder.at(run))
    shards = [replace(shard, revision=revision and str(shard.bytes)) for shard in shards_of(listing.shards)]
    made_by = {"stage": "index", "pool": "tars", "vl3syn": "0.1.0"}
    right = pool.index(listing.root, shard_table(shards))
    table.append(as_read_before(right), table.next_writer(), made_by)

    done = vl3syn("index", "--tars", tmp_path, "--run", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jobs"][0]["computed"] == 3  # those of 0.tar
    assert "pool: 1 tars are read again" in done.stderr
    stored = open_run(run).index.scan().sort("shard", "key").collect()
    assert stored["alt_text"].to_list() == ["22.05.txt", "22.06.txt", "22.07.txt", "1.5.txt", "plain.txt"]
    assert stored.to_dicts() == right.sort_by([("shard", "ascending"), ("key", "ascending")]).to_pylist()
    again = vl3syn("index", "--tars", tmp_path, "--run", run, "--json")
    assert json.loads(again.stdout)["jobs"][0]["computed"] == 0
    assert "read again" not in again.stderr
