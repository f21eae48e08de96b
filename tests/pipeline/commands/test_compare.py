"""`vl3syn compare`: what it prints."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.manifests.test_comparison import KEYS, SCORES, run
from tests.stored_facts import ids_of

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]


def test_moves_are_printed_with_reasons_and_examples(
    tmp_path: Path, make_images: Callable[..., Path], vl3syn: Vl3syn
) -> None:
    pool = make_images(tmp_path / "pool", 6)
    first = run(tmp_path / "a", pool, SCORES, {"min": 0.4})
    run(tmp_path / "b", pool, SCORES, {"min": 0.6})
    done = vl3syn("compare", tmp_path / "a", tmp_path / "b")
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 rows, 3 kept → 6 rows, 2 kept; 5 ended where they were" in done.stdout
    assert "dropped: quality: quality < 0.6" in done.stdout
    assert str(ids_of(first)[KEYS[2]]) in done.stdout
    read = json.loads(vl3syn("compare", tmp_path / "a", tmp_path / "b", "--json", "--limit", 0).stdout)
    assert (read["moves"][0]["rows"], read["moves"][0]["ids"]) == (1, [])


def test_folder_that_is_no_run_is_told(tmp_path: Path, vl3syn: Vl3syn) -> None:
    done = vl3syn("compare", tmp_path, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not a run" in done.stderr
