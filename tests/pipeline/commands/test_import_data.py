"""`vl3syn import` as a user runs it: folders, options, exit codes, and what is there after a stop."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from core.errors import UserError
from manifests.record_files import read_records
from model.training.data.importers import run as importing
from model.training.data.importers.registry import all_formats, sniff
from model.training.recipe import parse_recipe
from model.training.run import train
from pipeline.commands.app import app
from tests.model.tokenizers import word_pieces
from tests.model.training import training_data


def vl3syn(*args: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, args)])


def failure(*args: object) -> str:
    """The line of a command that a user's mistake ends."""
    result = vl3syn(*args)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


ENTRY = {
    "id": "1",
    "image": "1.png",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A kettle."}],
}
BROKEN = {"id": "2", "image": "1.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"}]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "1.png").write_bytes(training_data.picture(1))
    (tmp_path / "set.json").write_text(json.dumps([ENTRY, BROKEN, ENTRY | {"image": "3.png"}]))
    return tmp_path / "set.json"


def test_import_writes_records_rejected_rows_and_a_report(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = vl3syn("llava", source, "--media", tmp_path, "--out", out, "--as", "llava", "--licence", "MIT")
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in out.iterdir()) == [
        "import.json",
        "llava.jsonl",
        "records-00000.jsonl",
        "rejected.jsonl",
    ]
    assert [record.id for record in read_records(out)] == ["set/1/1", "set/1/3"]
    report = json.loads((out / "import.json").read_text())
    assert report["rows"] == {"in": 3, "out": 2, "rejected": 1, "limited": False}
    assert report["records"] == {"written": 2, "rejected": 1}
    assert report["media"] == {"present": 1, "missing": 1, "not looked at": 0}
    assert list(report["rejected"]) == ["roles out of order"]
    assert report["rejected"]["roles out of order"]["example"].startswith("set.json:2: ")
    assert (report["licence"]["name"], report["format"]) == ("MIT", "llava")
    assert report["sources"][0]["bytes"] == source.stat().st_size
    assert report["as"] == {"form": "llava", "records": 2, "left_beside": {"licence": 2}}
    assert [json.loads(line)["image"] for line in (out / "llava.jsonl").read_text().splitlines()] == ["1.png", "3.png"]
    assert "3 in = 2 out + 1 rejected" in result.output


def test_dry_run_prints_the_report_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = vl3syn("auto", source, "--media", tmp_path, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"]["in"] == 3
    assert sorted(tmp_path.iterdir()) == before


def test_strict_fails_on_any_finding(source: Path, tmp_path: Path) -> None:
    assert failure("llava", source, "--media", tmp_path, "--out", tmp_path / "a", "--strict").startswith(
        "--strict: 2 findings"
    )
    source.write_text(json.dumps([ENTRY]))
    assert vl3syn("llava", source, "--media", tmp_path, "--out", tmp_path / "b", "--strict").exit_code == 0


def test_only_an_earlier_import_is_replaced(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert vl3syn("llava", source, "--out", out).exit_code == 0
    assert failure("llava", source, "--out", out) == f"--out {out}: an import is there: give a new folder, or --replace"
    source.write_text(json.dumps([ENTRY]))
    assert vl3syn("llava", source, "--out", out, "--replace", "--form", "parquet").exit_code == 0
    assert [record.id for record in read_records(out)] == ["set/1/1"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    assert "something else is there" in failure("llava", source, "--out", other, "--replace")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), UserError("the disk is full")])
def test_stopped_import_leaves_what_was_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    out = tmp_path / "out"
    vl3syn("llava", source, "--out", out)
    before = {file: file.read_bytes() for file in out.iterdir()}

    def stopped(*args: Any) -> Any:
        raise stop

    monkeypatch.setattr(importing, "check", stopped)  # in the middle of a row
    monkeypatch.setattr(importing, "ROW_ERRORS", ())
    assert vl3syn("llava", source, "--out", out, "--replace").exit_code != 0
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.png", "out", "set.json"]


def test_broken_array_writes_nothing(source: Path, tmp_path: Path) -> None:
    source.write_text(json.dumps([ENTRY])[:-1] + ", {")
    reason = failure("llava", source, "--out", tmp_path / "out")
    assert reason.startswith("set.json: no JSON behind entry 1: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["lava", "SOURCE"], "lava: no such format; did you mean 'llava'?"),
        (["llava", "gone.json"], "gone.json: no such file or folder"),
        (["llava", "SOURCE", "--media", "gone"], "--media gone: no such folder"),
        (["llava", "SOURCE", "--set", "a=b"], "--set a=b: llava has no options: leave it out"),
        (["llava", "SOURCE", "--tokenizer", "gone"], "--tokenizer gone: no such folder"),
        (["chat", "SOURCE"], "none of 3 rows could be imported; the first: set.json:1: media in a chat of text"),
    ],
)
def test_mistake_of_the_user_is_one_line(source: Path, tmp_path: Path, args: list[str], reason: str) -> None:
    given = [str(source) if arg == "SOURCE" else arg for arg in args]
    assert reason in failure(*given, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["llava"],
        ["llava", "x"],
        ["llava", "x", "--out", "y", "--form", "csv"],
        ["llava", "x", "--out", "y", "--as", "z"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    assert vl3syn(*args).exit_code == 2


def test_import_without_a_record_writes_and_replaces_nothing(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "none of 3 rows could be imported" in failure("chat", source, "--out", out)
    assert not out.exists()
    assert vl3syn("llava", source, "--out", out).exit_code == 0
    before = {file: file.read_bytes() for file in out.iterdir()}
    assert "none of 3 rows could be imported" in failure("chat", source, "--out", out, "--replace")
    source.write_text("[]")
    assert failure("llava", source, "--out", out, "--replace").endswith("no rows in it")
    assert {file: file.read_bytes() for file in out.iterdir()} == before


def test_auto_refuses_a_tie_and_an_unknown_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text('{"colour": "red", "size": 3}\n')
    reason = failure("auto", tmp_path / "a.jsonl", "--dry-run")
    assert "no known format, its rows have the keys colour, size" in reason
    (tmp_path / "a.jsonl").write_text(json.dumps(ENTRY))
    llava = all_formats()["llava"]
    formats = {"llava": llava, "twin": llava.__class__("twin", "a twin", llava.read, llava.fits)}
    from model.training.data.importers import registry

    monkeypatch.setattr(registry, "all_formats", lambda: {**formats, "twin": formats["twin"]})
    assert "it may be llava or twin: name the format" in failure("auto", tmp_path / "a.jsonl", "--dry-run")


def test_tokens_are_counted_with_a_tokenizer(source: Path, tmp_path: Path) -> None:
    word_pieces(600).save_pretrained(tmp_path / "tokenizer")
    result = vl3syn("llava", source, "--dry-run", "--json", "--tokenizer", tmp_path / "tokenizer")
    report = json.loads(result.stdout)
    assert 0 < report["tokens"]["largest"] <= report["characters"]["largest"]


def test_auto_takes_what_reads_most_rows(tmp_path: Path) -> None:
    text = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]}
    clip = {"video": "v.mp4", "start": 1.0, **text}
    for entries, format_ in (
        ([text, ENTRY, text, BROKEN], "llava"),
        ([text], "chat"),
        ([clip, text, ENTRY], "videollama3"),
        ([{"instruction": "a", "output": "b"}], "chat"),
    ):
        (tmp_path / "a.json").write_text(json.dumps(entries))
        assert sniff(tmp_path / "a.json").name == format_


def test_list_names_each_format_with_its_licences() -> None:
    listed = {each["format"]: each for each in json.loads(vl3syn("--list", "--json").stdout)}
    assert set(listed) == set(all_formats())
    assert listed["vl3syn7m"]["datasets"]["vl3-syn7m"]["name"] == "Apache-2.0"
    assert "valley (CC-BY-NC-4.0)" in " ".join(vl3syn("--list").stdout.split())


FILM = {
    "video": "frames",
    "frames_fps": 1,
    "conversations": [{"from": "human", "value": "<video>\nWhen?"}, {"from": "gpt", "value": "0.0-1.0 s"}],
}
CHAT = [{"role": "user", "content": "What is <image>?"}, {"role": "assistant", "content": "A tag."}]
SOURCES: dict[str, Any] = {
    "llava": ENTRY,
    "videollama3": FILM,
    "vl3syn7m": {"image": "1.png", "caption": "A red kettle."},
    "videochat": {"video": "frames", "QA": [{"q": "What?", "a": "A kettle."}]},
    "videochat2": {"video": "frames", "QA": [{"i": "Be short.", "q": "What?", "a": "A kettle."}]},
    "videochatgpt": {"video_id": "frames", "q": "What?", "a": "A kettle."},
    "sharegpt4video": {
        "video_path": "frames",
        "keyframe": [0, 1],
        "timestamp": [0, 1],
        "captions": [{"idx": "-1", "content": "A kettle."}, {"idx": "0", "content": "It boils."}],
    },
    "chat": {"messages": CHAT},
}


def test_imported_records_train_a_step_in_either_form(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for name in ("1.png", "frames/1.png", "frames/2.png"):
        (tmp_path / name).write_bytes(training_data.picture(1))
    sources = {}
    for name, entry in SOURCES.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for _ in range(3)))
        form = "parquet" if name == "llava" else "jsonl"
        out = tmp_path / "in" / name
        assert (
            vl3syn(name, tmp_path / f"{name}.jsonl", "--media", tmp_path, "--out", out, "--form", form).exit_code == 0
        )
        sources[name] = {"records": str(out), "media": str(tmp_path)}
    written = training_data.recipe(tmp_path, steps=1)
    stage = written["stages"][0] | {"mixture": dict.fromkeys(sources, 1.0)}
    exported = train(parse_recipe(written | {"sources": sources, "stages": [stage]}, "test"), tmp_path / "trained")
    assert exported.is_dir()
    (step,) = [
        json.loads(line)
        for line in (tmp_path / "trained/metrics.jsonl").read_text().splitlines()
        if '"step"' in line and '"loss"' in line
    ][:1]
    assert step["loss"] > 0
    assert not step.get("skipped")


def test_auto_takes_the_narrower_of_two_forms(tmp_path: Path) -> None:
    flat = {"q": "What?", "a": "It.", "video_id": "v_x"}
    features = {
        "video": "v_x.pkl",
        "conversations": [{"from": "human", "value": "<video>"}, {"from": "gpt", "value": "A"}],
    }
    for entry, format_ in ((flat, "videochatgpt"), (features, "videochatgpt"), (ENTRY, "llava")):
        (tmp_path / "a.json").write_text(json.dumps([entry]))
        assert sniff(tmp_path / "a.json").name == format_


def test_commands_of_the_page_name_formats_and_data_sets() -> None:
    page = (Path(__file__).parents[3] / "docs/importing.md").read_text()
    rows = re.findall(r"\| `vl3syn import (\S+) ([^`]*)` \|", page)
    assert len(rows) > 20
    for name, rest in rows:
        format_ = all_formats()[name]
        dataset = re.search(r"--dataset (\S+)", rest)
        assert dataset is None or dataset[1] in {profile.name for profile in format_.profiles}, name
        assert set(re.findall(r"--set (\w+)=", rest)) <= set(format_.options), name
