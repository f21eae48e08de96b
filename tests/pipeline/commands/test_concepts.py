"""`vl3syn filter concepts` over a run of photographs: embeds, finds, draws; and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from manifests import open_run

pytestmark = pytest.mark.usefixtures("here")
Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def indexed(tmp_path: Path, photographs: list[Path], vl3syn: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "pool").mkdir()
    for path in photographs[:8]:
        shutil.copy(path, tmp_path / "pool")
    (tmp_path / "words.txt").write_text("cat\nrocket\ncoffee\nbrick\n")
    assert vl3syn("index", "--images", tmp_path / "pool", "--run", tmp_path / "run").returncode == 0
    return tmp_path / "run"


def test_concepts_are_found_and_drawn(indexed: Path, tiny_clip: Path, vl3syn: Command) -> None:
    words = indexed.parent / "words.txt"
    command = ("filter", "concepts", "--run", indexed, "--json")
    done = vl3syn(*command, "--vocabulary", words, "--encoder", tiny_clip, "--total", "5", "--top", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(job["stage"], job["computed"]) for job in report["jobs"]] == [("clip", 8), ("concepts", 8)]
    assert report["funnel"]["survivors"] == 5
    stored = open_run(indexed).facts("concepts").collect()
    assert stored["concepts"].list.len().to_list() == [2] * 8

    report = json.loads(vl3syn(*command, "--total", "3", "--seed", "4").stdout)
    assert [job["computed"] for job in report["jobs"]] == [0, 0]
    assert report["funnel"]["survivors"] == 3
    entry = open_run(indexed).recipe["stages"][-1]
    assert (entry["vocabulary"], entry["top"], entry["encoder"]) == (str(words), 2, str(tiny_clip))
    assert entry["keep"] == {"total_concepts": 3, "order": "random", "seed": 4}

    groups = json.loads(vl3syn("groups", indexed, "--by", "concepts", "--json").stdout)
    assert (groups["reached"]["rows"], groups["kept"]["rows"]) == (16, 6)

    words.write_text("cat\nrocket\nelephant\n")
    assert [j["computed"] for j in json.loads(vl3syn(*command, "--vocabulary", words).stdout)["jobs"]] == [0, 8]


def test_missing_vocabulary_or_encoder_is_refused(indexed: Path, vl3syn: Command) -> None:
    for arguments, message in (
        ((), "give --vocabulary, a file with one concept a line, or imagenet"),
        (("--vocabulary", indexed / "none.txt", "--encoder", "conse"), "none.txt: no such file"),
        (("--vocabulary", indexed.parent / "words.txt"), "has no embeddings yet: give --encoder"),
    ):
        refused = vl3syn("filter", "concepts", "--run", indexed, *arguments)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert message in refused.stderr
