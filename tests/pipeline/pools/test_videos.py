"""Pools of films: each film is one row, wherever it lies, and is read in place."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import BadSampleError, UserError
from core.film_header import read_film_header
from core.videos import decode, probe
from manifests.run import index_table
from manifests.schemas import FILM_INDEX
from manifests.storage import Folder
from pipeline.execution.index import chunks
from pipeline.pools import pool_of
from pipeline.pools.guess import guess_pool
from pipeline.pools.listing import SHARDS
from tests.conftest import jpeg
from tests.film_files import film, write_files, write_table, write_tar
from tests.runs import run_here

Row = dict[str, Any]
HEADER = ("width", "height", "format", "duration", "fps", "frame_count", "codec", "has_audio", "variable_rate")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The bytes of a film by its name; the last one is no film."""
    folder = tmp_path_factory.mktemp("films")
    made = [film(folder / f"{number}.{ending}", frames=10 + number) for number, ending in enumerate(ENDINGS)]
    return {**{path.name: path.read_bytes() for path in made}, "page.mp4": b"<html>404</html>"}


ENDINGS = ("mp4", "mkv", "avi", "ts", "webm")


def index(where: Path, passed_over: Counter[str] | None = None, **settings: Any) -> list[Row]:
    """The rows of a pool, checked for what holds of every index."""
    pool = pool_of(videos=str(where), **settings)
    listing = pool.check_first(pool.listing())
    counts = Counter[str]() if passed_over is None else passed_over
    table = pool.index(listing.root, listing.shards, counts)
    counts.update(listing.passed_over)
    assert table.schema.equals(FILM_INDEX, check_metadata=True)
    rows: list[Row] = table.to_pylist()
    assert {row["shard"] for row in rows} == set(listing.shards["path"].to_pylist())
    assert len({row["id"] for row in rows}) == len(rows)
    assert all((row["error"] is None) == (row["width"] is not None) for row in rows)
    return rows


def header(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in HEADER)


def opened(where: Path, row: Row) -> Any:
    pool = pool_of(videos=str(where))
    return pool.film(pool.root(), row["shard"], row["key"], row["offset"], row["bytes"])


@pytest.mark.parametrize("kind", ["files", "tar", "parquet"])
def test_film_is_the_same_wherever_it_lies(tmp_path: Path, films: Mapping[str, bytes], kind: str) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    write = {"files": write_files, "tar": write_tar, "parquet": write_table}[kind]
    write(pool if kind == "files" else pool / f"0.{kind}", films)
    rows = {row["key"]: row for row in index(pool)}
    assert list(rows) == list(films)
    for name, data in films.items():
        row, path = rows[name], tmp_path / name
        path.write_bytes(data)
        assert row["bytes"] == len(data)
        if name == "page.mp4":
            assert (
                row["error"] == "cannot be read as a video: Invalid data found when processing input; give a whole file"
            )
            continue
        read = read_film_header(path)
        assert header(row)[:3] == (read.width, read.height, read.container)
        assert (row["duration"], row["frame_count"], row["codec"]) == (read.duration, read.frames, read.codec)
        assert (row["fps"], row["has_audio"], row["variable_rate"]) == (25, False, read.variable_rate)
        frames = [decode(probe(source, fps=9), lambda f: f.tobytes()) for source in (path, opened(pool, row))]
        assert frames[0] == frames[1]


@pytest.mark.parametrize("seed", range(4))
def test_each_film_is_one_row(tmp_path: Path, films: Mapping[str, bytes], seed: int) -> None:
    """Whatever lies in a folder, in any mixture: no film is lost, none is there twice."""
    rng = random.Random(seed)
    names, expected = list(films), Counter[str]()
    for number in range(rng.randrange(3, 9)):
        held = {f"{k}_{name}": films[name] for k, name in enumerate(rng.choices(names, k=rng.randrange(1, 5)))}
        folder = tmp_path / "pool" / rng.choice(["", "a", "a/b", "c.d"])
        folder.mkdir(parents=True, exist_ok=True)
        kind = rng.choice(["file", "tar", "parquet"])
        if kind == "file":
            held = dict([next(iter(held.items()))])
            write_files(folder, {f"{number}{name}": data for name, data in held.items()})
        else:
            shard = folder / f"{number}.{kind}"
            write_tar(shard, held) if kind == "tar" else write_table(shard, held, rng.randrange(1, 4))
        expected.update(data for data in map(len, held.values()))
    write_files(tmp_path / "pool", {"notes.txt": b"a", "a/b.jpg": jpeg(9, 9), ".hidden.mp4": films["0.mp4"]})
    passed_over = Counter[str]()
    rows = index(tmp_path / "pool", passed_over)
    assert Counter(row["bytes"] for row in rows) == expected
    assert passed_over == {".txt": 1, ".jpg": 1, "hidden": 1}


def test_grown_pool_and_changed_film(tmp_path: Path, films: Mapping[str, bytes]) -> None:
    pool = write_files(tmp_path / "pool", {"a.mp4": films["0.mp4"], "b.mkv": films["1.mkv"]})
    recipe = {"pool": {"videos": str(pool)}, "stages": []}

    def ids() -> dict[str, list[int]]:
        run_here(recipe, tmp_path / "run")
        rows = index_table(Folder.at(tmp_path / "run"), FILM_INDEX).scan(["id", "key"]).collect()
        return {key: group["id"].to_list() for (key,), group in rows.group_by("key")}

    first = ids()
    write_files(pool, {"b.mkv": films["4.webm"], "c.ts": films["3.ts"]})
    second = ids()
    assert second["a.mp4"] == first["a.mp4"]
    assert len(second["c.ts"]) == 1
    assert len(set(second["b.mkv"]) | set(first["b.mkv"])) == 2
    assert ids() == second


def test_texts_of_films_are_read(tmp_path: Path, films: Mapping[str, bytes]) -> None:
    film_, json_ = films["0.mp4"], b'{"caption": "b", "url": "http://x/b"}'
    write_tar(tmp_path / "0.tar", {"a.mp4": film_, "a.txt": b"a", "a.jpg": jpeg(9, 9), "b.mp4": film_, "b.json": json_})
    write_table(tmp_path / "1.parquet", {"c.mp4": film_}, caption=["c"], text=["d"])
    passed_over = Counter[str]()
    rows = index(tmp_path, passed_over)
    assert [(row["key"], row["alt_text"], row["url"]) for row in rows] == [
        ("a.mp4", "a", None),
        ("b.mp4", "b", "http://x/b"),
        ("c.mp4", "d", None),
    ]
    assert passed_over == {".jpg": 1}
    assert [row["alt_text"] for row in index(tmp_path / "1.parquet", alt_text="caption")] == ["c"]


def test_table_beside_a_tar_is_its_metadata(tmp_path: Path, films: Mapping[str, bytes]) -> None:
    write_tar(tmp_path / "00000.tar", {"a.mp4": films["0.mp4"]})
    pq.write_table(pa.table({"key": ["a"], "caption": ["b"]}), tmp_path / "00000.parquet")
    passed_over = Counter[str]()
    assert [row["key"] for row in index(tmp_path, passed_over)] == ["a.mp4"]
    assert passed_over == {".parquet beside a tar": 1}


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_shard_that_is_cut_off_keeps_its_films(tmp_path: Path, films: Mapping[str, bytes], share: float) -> None:
    names = [f"{k}.mp4" for k in range(8)]
    whole = write_tar(tmp_path / "0.tar", dict.fromkeys(names, films["0.mp4"])).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        ends = [member.offset_data + member.size for member in archive]
    cut = int(ends[-1] * share)
    (tmp_path / "0.tar").write_bytes(whole[:cut])
    rows = index(tmp_path)
    assert rows[-1]["error"].startswith("broken tar: ")
    assert [row["key"] for row in rows[:-1]] == names[: len(rows) - 1]
    assert sum(row["error"] is None for row in rows) == sum(end <= cut for end in ends) > 0


def test_damaged_table_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_bytes(b"PAR1" + bytes(100))
    (row,) = index(tmp_path)
    assert row["error"].startswith("broken Parquet: ")


def test_links_and_pipes_are_not_followed(tmp_path: Path, films: Mapping[str, bytes]) -> None:
    pool = write_files(tmp_path / "pool", {"a.mp4": films["0.mp4"], "d/B.MP4": films["0.mp4"]})
    (tmp_path / "secret.mp4").write_bytes(films["0.mp4"])
    (pool / "inside.mp4").symlink_to("a.mp4")
    (pool / "out.mp4").symlink_to("../secret.mp4")
    os.mkfifo(pool / "pipe.mp4")
    errors = {row["key"]: str(row["error"]).partition(":")[0] for row in index(pool)}
    assert errors == {
        "a.mp4": "None",
        "d/B.MP4": "None",
        "inside.mp4": "None",
        "out.mp4": "link",
        "pipe.mp4": "not a file",
    }
    assert {row["key"]: row["error"] for row in index(pool, follow_links=True)}["out.mp4"] is None
    assert [row["error"] for row in index(pool / "out.mp4")] == [None], "the user names it"


def test_film_that_became_a_link_is_not_opened(tmp_path: Path, films: Mapping[str, bytes]) -> None:
    pool = write_files(tmp_path / "pool", {"a.mp4": films["0.mp4"]})
    (row,) = index(pool)
    shutil.move(pool / "a.mp4", tmp_path / "b.mp4")
    (pool / "a.mp4").symlink_to("../b.mp4")
    with pytest.raises(BadSampleError, match="link: leads out of the pool"):
        probe(opened(pool, row))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shard_that_became_shorter_is_an_error_of_the_film(
    tmp_path: Path, films: Mapping[str, bytes], kind: str
) -> None:
    write: Callable[..., Path] = {"tar": write_tar, "parquet": write_table}[kind]
    write(tmp_path / f"0.{kind}", films)
    rows = index(tmp_path)
    write(tmp_path / f"0.{kind}", {"0.mp4": films["0.mp4"]})
    with pytest.raises(BadSampleError, match=r"cut off: |is not there any more|has .* bytes now"):
        probe(opened(tmp_path, rows[3]))


@pytest.mark.parametrize(
    ("files", "kind", "what"),
    [
        ({"a/1.mp4": b"", "2.MOV": b"", "n.txt": b"a"}, "videos", "films (1 .mov, 1 .mp4)"),
        ({"0.tar": {"a.mp4": b"", "a.json": b"{}"}, "0.parquet": {}}, "videos", "tars with films (1 .tar)"),
        ({"0.parquet": {"video": [{"bytes": b"", "path": "a"}]}}, "videos", "Parquet files with films (1 .parquet)"),
        ({"0.parquet": {"mp4": [b""], "url": ["https://a.example"]}}, "videos", "Parquet files with films"),
        ({"0.tar": {"a.jpg": b"", "a.txt": b""}}, "tars", "webdataset tars (1 .tar)"),
        ({"0.parquet": {"image": [jpeg(9, 9)]}}, "parquet", "Parquet files with images"),
        ({"1.jpg": jpeg(9, 9), "a.ts": b"export const a = 1"}, "images", "a folder of images (1 .jpg)"),
    ],
    ids=["files", "tar", "parquet", "urls_beside", "images_tar", "images_parquet", "typescript"],
)
def test_path_is_taken_for_films_where_films_lie(tmp_path: Path, files: dict[str, Any], kind: str, what: str) -> None:
    for name, content in files.items():
        if isinstance(content, bytes):
            write_files(tmp_path, {name: content})
        elif name.endswith(".tar"):
            write_tar(tmp_path / name, content)
        else:
            pq.write_table(pa.table(content or {"key": ["a"]}), tmp_path / name)
    pool, said = guess_pool(str(tmp_path), {})
    assert (pool.kind, what in said) == (kind, True), said


def test_folder_of_images_and_films_is_asked_about(tmp_path: Path, films: Mapping[str, bytes]) -> None:
    write_files(tmp_path, {"a.mp4": films["0.mp4"], "a.jpg": jpeg(9, 9)})
    with pytest.raises(
        UserError, match=r"images \(1 .jpg\) and films \(1 .mp4\); say .*: --images or --videos"
    ) as error:
        guess_pool(str(tmp_path), {})
    assert "\n" not in str(error.value)
    passed_over = Counter[str]()
    assert [row["key"] for row in index(tmp_path, passed_over)] == ["a.mp4"]
    assert passed_over == {".jpg": 1}


def test_work_is_that_of_headers(tmp_path: Path) -> None:
    """A thousand films of a gigabyte are some jobs, not a thousand; a Parquet file is read as a whole."""
    paths = [f"{number}.mp4" for number in range(1000)]
    shards = pa.table([paths, [1 << 30] * 1000, [None] * 1000, [""] * 1000], schema=SHARDS)
    pool = pool_of(videos="x")
    assert len(list(chunks(shards, pool.work(shards)))) == 8
    tables = pa.table([["a.parquet", "b.tar"], [1 << 30] * 2, [None] * 2, [""] * 2], schema=SHARDS)
    assert pool.work(tables) == [1 << 30, 1 << 23]


def test_command_indexes_films(tmp_path: Path, films: Mapping[str, bytes], vl3syn: Callable[..., Any]) -> None:
    write_files(tmp_path / "pool", {**films, "a.txt": b"a"})
    for number, arguments in enumerate([[tmp_path / "pool"], ["--videos", tmp_path / "pool"]]):
        done = vl3syn("index", *arguments, "--run", tmp_path / f"run{number}")
        assert done.returncode == 0, done.stderr
        assert "passed over files that are no films by their ending: .txt 1" in done.stderr
        rows = (
            index_table(Folder.at(tmp_path / f"run{number}"), FILM_INDEX).scan(["key", "duration", "error"]).collect()
        )
        assert rows.filter(pl.col("error").is_null())["duration"].to_list() == pytest.approx(
            [0.4, 0.44, 0.48, 0.52, 0.56]
        )


def test_films_of_a_store_are_read(bucket: str, films: Mapping[str, bytes], tmp_path: Path) -> None:
    root = Folder.at(f"{bucket}/films")
    root.write("a.mp4", films["0.mp4"])
    root.write("0.tar", write_tar(tmp_path / "0.tar", films).read_bytes())
    root.write("0b.parquet", write_table(tmp_path / "0.parquet", films).read_bytes())
    pool = pool_of(videos=f"{bucket}/films")
    listing = pool.listing()
    rows = pool.index(listing.root, listing.shards).to_pylist()
    assert len(rows) == 1 + 2 * len(films)
    for row in rows:
        if row["error"] is None:
            source = pool.film(listing.root, row["shard"], row["key"], row["offset"], row["bytes"])
            assert len(decode(probe(source, fps=25), lambda frame: None)[0]) == row["frame_count"]
