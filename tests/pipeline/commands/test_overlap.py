"""`vl3syn overlap` and the filter `overlap`, through the command line's functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from core.errors import UserError
from pipeline.commands.app import app
from tests.filters.overlap.pictures import cropped, jpeg, png, scene

QUESTION = "Which of the three harbour cranes stands nearest to the red lighthouse keeper's cottage?"


def overlap(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["overlap", *map(str, arguments)])


def entry(image: str, question: str, **others: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "Yes."}]
    return {"image": [image], "conversations": turns, **others}


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """Annotations of six rows, and a benchmark of three; rows 1 to 4 are planted."""
    images = {
        "file.png": png(scene(0)),
        "crop.jpg": jpeg(cropped(scene(1), 0.02, 0.11, 0.1, 0.0)),
        "other.jpg": jpeg(scene(40)),
        "again.jpg": jpeg(scene(2), 40),
        "mirror.jpg": jpeg(scene(0).transpose(0)),  # type: ignore[arg-type]
    }
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    rows = [
        entry("file.png", "What is in the image?"),
        entry("crop.jpg", "How many?"),
        entry("other.jpg", QUESTION.lower()),
        entry("again.jpg", QUESTION),
        entry("mirror.jpg", "What is in the image?"),
        entry("other.jpg", "Anything?", id="aB3-_defghi"),
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = tmp_path / "benchmark"
    benchmark.mkdir()
    questions = ["What is in the image?", "Is it?", QUESTION]
    frame = {
        "question_id": ["b0", "b1", "b2"],
        "question": questions,
        "image": [{"bytes": png(scene(number)), "path": None} for number in range(3)],
    }
    pl.DataFrame(frame).write_parquet(benchmark / "test.parquet")
    return tmp_path / "data.jsonl", benchmark / "test.parquet"


def test_planted_rows_are_found_and_the_near_misses_not(planted: tuple[Path, Path], tmp_path: Path) -> None:
    data, benchmark = planted
    done = overlap(data, "--with", benchmark, "--out", tmp_path / "hits.jsonl", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    found = {kind: counts["found"] for kind, counts in told["found"].items()}
    assert found == {"file": 1, "pixels": 0, "picture": 1, "crop": 1, "text": 1}
    assert told["rows"] == {"all": 6, "found": 4, "generic_question_only": 1}
    assert (told["benchmark_rows"], told["benchmark_images"]) == ({"all": 3, "found": 3, "with_text": 3}, 3)
    hits = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()]
    assert [(hit["data_id"], hit["kind"], hit["benchmark_id"], hit["with_question"]) for hit in hits] == [
        ("data.jsonl:1", "file", "b0", True),
        ("data.jsonl:2", "crop", "b1", False),
        ("data.jsonl:3", "text", "b2", True),
        ("data.jsonl:4", "picture", "b2", True),
    ]


def test_order_of_the_data_does_not_matter(planted: tuple[Path, Path], tmp_path: Path) -> None:
    data, benchmark = planted
    before = overlap(data, "--with", benchmark, "--out", tmp_path / "a.parquet")
    data.write_text("".join(reversed(data.read_text().splitlines(keepends=True))))
    after = overlap(data, "--with", benchmark, "--out", tmp_path / "b.parquet")
    assert after.stdout == before.stdout
    assert "generic question only" in after.stdout
    a, b = (pl.read_parquet(tmp_path / name).drop("data_id").sort(pl.all()) for name in ("a.parquet", "b.parquet"))
    assert a.height == 4
    assert a.equals(b)


def test_blocked_ids_are_found_by_name(planted: tuple[Path, Path], tmp_path: Path) -> None:
    data, benchmark = planted
    (tmp_path / "ids.txt").write_text("aB3-_defghi\n")
    done = overlap(data, "--with", benchmark, "--ids", tmp_path / "ids.txt", "--json")
    assert json.loads(done.stdout)["found"]["id"] == {"found": 1, "of": 6}
    assert json.loads(done.stdout)["rows"]["found"] == 5


def test_strict_fails_on_hits_and_on_what_was_not_searched(planted: tuple[Path, Path], tmp_path: Path) -> None:
    data, benchmark = planted
    refused = overlap(data, "--with", benchmark, "--strict")
    assert isinstance(refused.exception, UserError)
    assert "4 of 6 rows overlap" in str(refused.exception)
    clean = tmp_path / "clean.jsonl"
    clean.write_text(json.dumps(entry("other.jpg", "Anything?")))
    assert overlap(clean, "--with", benchmark, "--strict").exit_code == 0
    clean.write_text(json.dumps(entry("gone.jpg", "Anything?")))
    lenient = overlap(clean, "--with", benchmark)
    assert lenient.exit_code == 0
    assert "gone.jpg: no such file" in lenient.stderr
    assert isinstance(overlap(clean, "--with", benchmark, "--strict").exception, UserError)


def test_nothing_to_search_is_an_error(planted: tuple[Path, Path], tmp_path: Path) -> None:
    _, benchmark = planted
    (tmp_path / "bad.jsonl").write_text('{"query": "q"}\n')
    for path, message in ((tmp_path / "bad.jsonl", "nothing of 1 rows"), (tmp_path / "gone.jsonl", "cannot be read")):
        refused = overlap(path, "--with", benchmark, "--out", tmp_path / "hits.jsonl")
        assert message in str(refused.exception)
        assert not (tmp_path / "hits.jsonl").exists()
    refused = overlap(path, "--with", benchmark, "--out", tmp_path / "hits.csv")
    assert "ends with .jsonl or .parquet" in str(refused.exception)


def test_cosine_without_an_encoder_is_refused(planted: tuple[Path, Path]) -> None:
    data, benchmark = planted
    refused = overlap(data, "--with", benchmark, "--min-cosine", "0.9")
    assert (refused.exit_code, "needs --encoder" in refused.output) == (2, True)


def test_what_of_a_benchmark_is_searched_for_is_told(planted: tuple[Path, Path]) -> None:
    data, benchmark = planted
    renamed = pl.read_parquet(benchmark).rename({"question": "ask"})
    renamed.write_parquet(benchmark)
    told = overlap(data, "--with", benchmark).stderr
    assert f"{benchmark}: 3 rows, 3 images, 0 rows with a text; no text of it is searched for" in told


def test_half_characters_do_not_stop_the_search(planted: tuple[Path, Path], tmp_path: Path) -> None:
    _, benchmark = planted
    (tmp_path / "odd.jsonl").write_text(json.dumps(entry("file.png", f"\ud83d {QUESTION}", id="\ud83d")))
    for name in ("hits.parquet", "hits.jsonl"):
        done = overlap(tmp_path / "odd.jsonl", "--with", benchmark, "--out", tmp_path / name)
        assert done.exit_code == 0, done.exception
    hits = pl.read_parquet(tmp_path / "hits.parquet").to_dicts()
    assert [hit["kind"] for hit in hits] == ["file", "text"]
    assert hits[0]["data_id"] == "odd.jsonl:1 (id \ufffd)"


@pytest.mark.usefixtures("here")
def test_filter_overlap_searches_a_changed_benchmark_again(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    for number in range(2):
        (tmp_path / f"pool/{number}.png").write_bytes(png(scene(number)))
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark/a.jpg").write_bytes(jpeg(scene(0)))
    run = ("--run", str(tmp_path / "run"))
    runner = CliRunner()
    assert runner.invoke(app, ["index", "--images", str(tmp_path / "pool"), *run]).exit_code == 0
    command = ["filter", "overlap", *run, "--with", str(tmp_path / "benchmark"), "--max", "0", "--json"]
    assert _kept(runner.invoke(app, command)) == 1
    (tmp_path / "benchmark/b.jpg").write_bytes(jpeg(scene(1)))
    assert _kept(runner.invoke(app, command)) == 0
    assert "--with" in str(runner.invoke(app, ["filter", "overlap", *run, "--as", "other"]).exception)


def _kept(done: Result) -> int:
    assert done.exit_code == 0, (done.output, done.exception)
    return int(json.loads(done.stdout)["funnel"]["survivors"])
