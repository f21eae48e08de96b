"""What a pool lists: candidates of any name, links and pipes that are not opened, and what is passed over."""

from __future__ import annotations

import io
import os
import socket
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.pools import Listing, format_counts, pool_of
from pipeline.pools.listing import is_candidate, shards_of

MakeImages = Callable[..., Path]


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30)).save(data, "PNG")
    return data.getvalue()


def indexed(folder: Path) -> list[dict[str, Any]]:
    pool = pool_of(images=str(folder))
    listing = pool.listing()
    rows: list[dict[str, Any]] = pool.index(listing.root, listing.shards).to_pylist()
    return rows


def listed(listing: Listing) -> list[str]:
    return listing.shards["path"].to_pylist()


# Names

NAMES = {
    "spaces": "  a b .jpg",
    "newline": "a\nb.jpg",
    "carriage return and tab": "a\r\tb.jpg",
    "emoji": "🦊🏽.jpg",
    "quotes": "a'b\"c`d.jpg",
    "shell": "$(touch x);*?.jpg",
    "braces and percent": "{0}%s%00.jpg",
    "backslash": "a\\xff\\b.jpg",
    "of 255 bytes": "n" * 251 + ".jpg",
    "leading dash": "-rf.jpg",
    "right-to-left": "\u202egpj.exe.jpg",
    "control characters": "\x01\x1b[2J\x7f.jpg",
    "NFC": unicodedata.normalize("NFC", "é.jpg"),
    "NFD": unicodedata.normalize("NFD", "é.jpg"),
    "without ending": "picture",
    "upper case": "A.JPG",
    "mixed case": "A.jPeG",
    "double ending": "a.tar.jpg",
    "ending only of digits": "a.png.jpeg",
    "looks like a URL": "http:/x/a.jpg",
    "trailing blank": "a.jpg/b ",
}


@pytest.mark.parametrize("name", [pytest.param(name, id=kind) for kind, name in NAMES.items()])
def test_unusual_name_is_indexed_unchanged(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture())
    (row,) = indexed(tmp_path)
    assert (row["shard"], row["key"], row["width"], row["height"], row["error"]) == (name, name, 40, 30, None)


def test_names_that_look_equal_stay_two_images(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "é.jpg")).write_bytes(picture())
    first, second = indexed(tmp_path)
    assert first["key"] != second["key"]
    assert first["id"] != second["id"]
    assert first["error"] is second["error"] is None


def test_name_that_is_not_utf8_is_one_error_row(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(picture())
    (row,) = indexed(tmp_path)
    assert row["key"] == "caf\\xe9.jpg"
    assert row["error"].startswith("odd name: ")


def test_folder_name_that_is_not_utf8_is_an_error_row(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    (folder / "a.jpg").write_bytes(picture())
    (row,) = indexed(tmp_path)
    assert (row["key"], row["error"].partition(":")[0]) == ("\\xff/a.jpg", "odd name")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in ("a.jpg", "A.JPEG", "a", "a.b/c", ".jpg", "../a.webp", "/etc/passwd", "")),
        *((name, False) for name in ("a.txt", "a.jpg.txt", "a.tar.gz", "a.json", "a.jpg ", "a.jpg\n")),
    ],
)
def test_image_candidates_are_recognised_by_their_ending(name: str, is_one: bool) -> None:
    assert is_candidate(name) is is_one


def test_skipped_files_are_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.TXT", "b.txt", "c.json", ".hidden.jpg", ".DS_Store", "sub/.x.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listing = pool_of(images=str(tmp_path)).listing()
    assert listed(listing) == ["a.jpg", "sub/b.png"]
    assert listing.passed_over == Counter({"hidden": 3, ".txt": 2, ".json": 1})
    assert format_counts(listing.passed_over) == "hidden 3, .txt 2, .json 1"


# Links, pipes, sockets


@pytest.fixture
def pool_folder(tmp_path: Path) -> Path:
    """A pool of one image, with another image outside of it."""
    folder = tmp_path / "pool"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture())
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(picture())
    return folder


def errors(folder: Path) -> dict[str, str | None]:
    """The error of each row, up to its colon."""
    return {row["key"]: row["error"] and row["error"].partition(":")[0] for row in indexed(folder)}


@pytest.mark.parametrize(
    ("target", "error"),
    [
        pytest.param("../outside/secret.png", "link", id="out of the pool"),
        pytest.param("/etc/hostname", "link", id="absolute, out of the pool"),
        pytest.param("nowhere.png", "link", id="dangling"),
        pytest.param("l.png", "link", id="to itself"),
        pytest.param("loop.png", "link", id="loop of two"),
        pytest.param("sub", "link", id="to a directory in the pool"),
        pytest.param("../outside", "link", id="to a directory out of the pool"),
        pytest.param(".", "link", id="to the pool itself"),
        pytest.param("pipe", "link", id="to a pipe in the pool"),
        pytest.param("outer.png", "link", id="to a link that leads out"),
        pytest.param("../pool-2/b.png", "link", id="to a folder whose name begins like the pool's"),
        pytest.param("a.png", None, id="to an image in the pool"),
        pytest.param("sub/../a.png", None, id="to an image in the pool, by a detour"),
        pytest.param("inner.png", None, id="to a link to an image in the pool"),
    ],
)
@pytest.mark.timeout(20)
def test_link_is_followed_inside_the_pool_only(pool_folder: Path, target: str, error: str | None) -> None:
    (pool_folder / "sub").mkdir()
    (pool_folder.parent / "pool-2").mkdir()
    (pool_folder.parent / "pool-2" / "b.png").write_bytes(picture())
    os.mkfifo(pool_folder / "pipe")
    for name, leads in {"loop.png": "l.png", "outer.png": "../outside/secret.png", "inner.png": "a.png"}.items():
        (pool_folder / name).symlink_to(leads)
    (pool_folder / "l.png").symlink_to(target)
    result = errors(pool_folder)
    assert result.pop("l.png") == error
    assert result == {"a.png": None, "inner.png": None, "loop.png": errors(pool_folder)["loop.png"]} | {
        "outer.png": "link",
        "pipe": "not a file",
    }


def test_links_in_a_circle_are_error_rows(pool_folder: Path) -> None:
    for name, leads in {"x/y": "..", "x/z": "../x"}.items():
        (pool_folder / name).parent.mkdir(exist_ok=True)
        (pool_folder / name).symlink_to(leads)
    assert errors(pool_folder) == {"a.png": None, "x/y": "link", "x/z": "link"}


def test_pool_folder_may_be_a_link(pool_folder: Path) -> None:
    (pool_folder / "b.png").symlink_to("a.png")
    (pool_folder.parent / "link").symlink_to("pool")
    assert errors(pool_folder.parent / "link") == {"a.png": None, "b.png": None}


@pytest.mark.timeout(20)
def test_pipe_named_like_an_image_is_not_opened(pool_folder: Path) -> None:
    os.mkfifo(pool_folder / "b.jpg")
    assert errors(pool_folder) == {"a.png": None, "b.jpg": "not a file"}


def test_socket_named_like_an_image_is_not_opened(pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pool_folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("b.jpg")
        assert errors(pool_folder) == {"a.png": None, "b.jpg": "not a file"}


def test_folder_named_like_an_image_is_searched(pool_folder: Path) -> None:
    (pool_folder / "b.jpg").mkdir()
    (pool_folder / "b.jpg" / "c.png").write_bytes(picture())
    assert errors(pool_folder) == {"a.png": None, "b.jpg/c.png": None}


def test_file_that_vanished_after_listing_is_retried(pool_folder: Path) -> None:
    pool = pool_of(images=str(pool_folder))
    listing = pool.listing()
    (pool_folder / "a.png").unlink()
    (row,) = pool.index(listing.root, listing.shards).to_pylist()
    assert row["error"].startswith("unreadable: ")
    assert row["retry"] is True


# Nothing there


@pytest.mark.parametrize("kind", ["images", "tars", "parquet", "img2dataset"])
@pytest.mark.parametrize("path", ["empty", "nowhere", "nowhere/deeper", "a file/in it*", "only text"])
def test_empty_pool_is_refused_in_one_line(tmp_path: Path, kind: str, path: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_bytes(b"")
    (tmp_path / "only text").mkdir()
    (tmp_path / "only text" / "a.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=kind) as caught:
        pool_of(**{kind: str(tmp_path / path)}).listing()
    assert "\n" not in str(caught.value)
    assert path in str(caught.value)


@pytest.mark.parametrize("kind", ["images", "img2dataset"])
def test_file_instead_of_a_folder_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    with pytest.raises(ValueError, match=f"^{kind}: .*a.jpg.*[Nn]ot a (folder|directory)"):
        pool_of(**{kind: str(tmp_path / "a.jpg")}).listing()


def test_skipped_files_are_reported_when_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\(passed over: \.txt 1\)"):
        pool_of(images=str(tmp_path)).listing()


@pytest.mark.parametrize(
    "fields",
    [{}, {"images": "a", "tars": "b"}, {"images": "a", "image": "x"}, {"tars": "a", "id": "x"}, {"folder": "a"}],
)
def test_pool_of_no_kind_or_two_kinds_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"pool is exactly one|has no setting|unknown key"):
        pool_of(**fields)


# Globs


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["0.tar", "1.tar", "sub/2.tar", "sub/deep/3.tar"]),
        ("*.tar", ["0.tar", "1.tar"]),
        ("?.tar", ["0.tar", "1.tar"]),
        ("[1-9].tar", ["1.tar"]),
        ("*/*.tar", ["sub/2.tar"]),
        ("**/*.tar", ["0.tar", "1.tar", "sub/2.tar", "sub/deep/3.tar"]),
        ("sub/*.tar", ["2.tar"]),
        ("0.tar", ["0.tar"]),
        ("*.t?r", ["0.tar", "1.tar"]),
        ("0+tar", []),
        ("sub/d*/3.tar", ["deep/3.tar"]),
    ],
)
def test_glob_lists_the_matching_files(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("0.tar", "1.tar", "0.txt", "sub/2.tar", "sub/deep/3.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    pool = pool_of(tars=str(tmp_path / pattern))
    if not expected:
        with pytest.raises(ValueError, match="nothing to index"):
            pool.listing()
        return
    listing = pool.listing()
    assert listed(listing) == expected
    assert all((Path(listing.root.path) / path).is_file() for path in expected)


# Output of img2dataset


def test_img2dataset_lists_finished_shards_of_three_formats(tmp_path: Path) -> None:
    for name in (
        *("00000.tar", "00000.parquet", "00000_stats.json"),
        *("00001/000010000.jpg", "00001.parquet", "00001_stats.json"),
        *("00002.parquet", "00002_stats.json"),
        "00003_stats.json",
        *("00004.tar", "00004.parquet"),
        "00005.parquet",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"xyz")
    listing = pool_of(img2dataset=str(tmp_path)).listing()
    assert [(s.path, s.bytes) for s in shards_of(listing.shards)] == [
        ("00000.tar", 3),
        ("00001", 3),
        ("00002.parquet", 3),
        ("00003", 0),
    ]
    assert [s.problem and s.problem.partition(":")[0] for s in shards_of(listing.shards)] == [
        None,
        None,
        None,
        "missing",
    ]
    assert listing.passed_over == Counter({"unfinished": 2})


def test_images_of_the_fixture_are_all_listed(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 30)
    listing = pool_of(images=str(tmp_path)).listing()
    assert len(listing.shards) == 30
    assert all(s.bytes > 0 and s.problem is None for s in shards_of(listing.shards))
