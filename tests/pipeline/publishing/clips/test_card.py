"""Published clips are opened by every common reader, and their card tells a stranger what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from core.errors import UserError
from manifests import Run
from manifests.record_files import parse_record, read_records
from pipeline.commands.app import app
from tests.pipeline.publishing.clips.clip_runs import STAGES, clip_run, clips_pool, facts, pool, publish

pytestmark = [pytest.mark.usefixtures("clips_pool"), pytest.mark.timeout(120)]
__all__ = ["clips_pool"]

here = pytest.mark.usefixtures("here")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """One clip has no events, and with one clip per shard one shard of some subsets is empty."""
    stored = facts()
    stored["dense_caption"]["a.mp4#1"]["events"] = []
    stages = [dict(stage) for stage in STAGES]
    stages[1]["keep"] = {"min_event_count": 1}
    stored["dense_caption"]["b.mp4#1"]["event_count"] = 0
    return clip_run(tmp_path / "run", pool(tmp_path / "pool"), stored, stages=stages)


def command(*args: object) -> Any:
    result = CliRunner().invoke(app, ["publish", *map(str, args)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@here
def test_records_are_read_by_every_common_reader(run: Run, tmp_path: Path) -> None:
    import datasets
    import duckdb

    out = tmp_path / "out"
    publish(run, out, rows_per_shard=1)
    counts = {"captions": 11, "questions": 8, "grounding": 6, "stream": 3}
    for subset, count in counts.items():
        glob = f"{out}/{subset}/*.parquet"
        records = {record.id: record for record in read_records(out / subset)}
        assert len(records) == count
        frame = pl.read_parquet(glob)
        assert {row["id"]: parse_record(row["record"]) for row in frame.to_dicts()} == records
        assert duckdb.sql(f"select count(distinct id), min(media[1].key) from '{glob}'").fetchall() == [(count, "v0")]
        loaded = datasets.load_dataset(str(out), subset, split="train", cache_dir=str(tmp_path / "cache"))
        assert {row["id"]: parse_record(row["record"]) for row in loaded} == records


@here
def test_card_says_what_was_chosen_and_by_what(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(run, out, films="copy")
    text = (out / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert [config["config_name"] for config in yaml.safe_load(front)["configs"]] == [
        "captions",
        "questions",
        "grounding",
        "stream",
    ]
    assert "28 records about 4 clips of 2 films, chosen out of 5 clips by vl3syn" in body
    assert "| `grounding` | 6 |" in body
    assert "| dense_caption | 5 | 4 | 1 event_count &lt; 1 |" in body
    assert "Apache-2.0" in body
    assert "/models" not in text
    assert str(tmp_path) not in text
    assert "| CC-BY-4.0 | 3 |" in body
    assert "| facts | questions: answered without the film | 4 |" in body
    sources = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])["sources"]
    assert sources["stream"] == {"records": "PATH_OF_THIS_FOLDER/stream", "media": "PATH_OF_THIS_FOLDER"}
    before = text
    publish(run, out, films="copy")
    assert (out / "README.md").read_text() == before


@here
def test_croissant_lists_the_shards_with_their_hashes(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(run, out)
    described = json.loads((out / "croissant.json").read_text())
    files = {entry["name"]: entry["sha256"] for entry in described["distribution"] if "sha256" in entry}
    shards = {str(file.relative_to(out)): file for file in out.glob("*/*.parquet") if file.parent.name[0] != "."}
    assert files == {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in shards.items()}
    assert described["description"].startswith("28 conversations about clips of films")
    assert [records["name"] for records in described["recordSet"]] == ["captions", "questions", "grounding", "stream"]
    assert "captions/record" in [field["@id"] for field in described["recordSet"][0]["field"]]


def test_command_publishes_a_run_of_clips(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = command("--run", run.url, "--out", out, "--subset", "stream", "--films", "encode", "--json")
    done: Mapping[str, Any] = json.loads(result.stdout)
    assert (done["rows"], done["records"], len(done["left_out"])) == (3, {"stream": 3}, 1)
    assert len(list(out.glob("media/*/*.mp4"))) == 3
    shown = command("--run", run.url, "--out", out, "--subset", "stream", "--films", "encode").output
    assert "published: 3 clips in 1 file" in shown
    assert "records: 3 stream" in shown
    assert "not published: " in shown


def test_same_bytes_with_another_number_of_workers(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for cpus in (1, 3):
        monkeypatch.setattr("pipeline.publishing.shard_job.count_cpus", lambda cpus=cpus: cpus)
        out = tmp_path / f"out{cpus}"
        command("--run", run.url, "--out", out, "--films", "encode", "--rows-per-shard", 1)
        names = [file for file in out.rglob("*") if file.suffix in (".parquet", ".mp4") and file.parent.name[0] != "."]
        contents.append({str(file.relative_to(out)): file.read_bytes() for file in names})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 4 * 4 + 4


def test_wrong_options_for_clips_are_named(run: Run, tmp_path: Path) -> None:
    for args, reason in (
        (("--format", "webdataset"), "unknown key 'format'"),
        (("--films", "link"), "films: Input should be 'reference', 'copy' or 'encode'"),
        (("--subset", "short"), "Input should be 'captions', 'questions', 'grounding' or 'stream'"),
    ):
        with pytest.raises(UserError, match=reason):
            command("--run", run.url, "--out", tmp_path / "out", *args)


@here
def test_clips_and_images_do_not_share_a_folder(run: Run, tmp_path: Path) -> None:
    publish(run, tmp_path / "out")
    (tmp_path / "list.txt").write_text("123\n")
    with pytest.raises(UserError, match="not images: this works on images only; drop clips by a rule of their run"):
        command("--out", tmp_path / "out", "--remove", tmp_path / "list.txt")
