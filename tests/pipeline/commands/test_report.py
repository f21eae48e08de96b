"""`vl3syn report`: where the page goes, and what is said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests import Run
from tests.pages import page_run

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return page_run(tmp_path_factory.mktemp("pages"))


def test_report_lies_in_the_run_or_where_out_says(run: Run, vl3syn: Vl3syn, tmp_path: Path) -> None:
    done = vl3syn("report", run.url)
    assert (done.returncode, done.stdout) == (0, "")
    written = Path(run.url) / "report.html"
    assert f"report: {run.url}/report.html" in done.stderr
    assert written.read_text().startswith("<!DOCTYPE html>")

    written.unlink()
    elsewhere = tmp_path / "new" / "page.html"
    told = json.loads(vl3syn("report", run.url, "--out", elsewhere, "--json").stdout)
    assert told == {"report": str(elsewhere), "bytes": elsewhere.stat().st_size}
    assert not written.exists()


@pytest.mark.parametrize("command", ["report", "look"])
def test_target_is_checked_before_the_tables_are_read(command: str, vl3syn: Vl3syn, tmp_path: Path) -> None:
    run = page_run(tmp_path)
    next(Path(run.url).glob("index/part-*")).write_bytes(b"damaged")
    (tmp_path / "file").touch()
    done = vl3syn(command, run.url, "--out", tmp_path / "file" / "page.html")
    assert (done.returncode, done.stderr) == (
        1,
        f"vl3syn: {tmp_path}/file/page.html: {tmp_path}/file is not a folder: name another file\n",
    )


def test_report_of_no_run_is_one_line(vl3syn: Vl3syn, tmp_path: Path) -> None:
    done = vl3syn("report", tmp_path)
    assert done.returncode == 1
    assert "is not a run" in done.stderr
    assert "Traceback" not in done.stderr


def test_report_says_that_the_index_is_not_finished(run: Run, vl3syn: Vl3syn, tmp_path: Path) -> None:
    note = Path(run.url) / "index" / "unfinished"
    note.write_bytes(b"the first time")
    page = tmp_path / "page.html"
    done = vl3syn("report", run.url, "--out", page)
    note.unlink()
    assert done.returncode == 0
    assert "index is not finished" in done.stderr
    assert "index is not finished" in page.read_text()
