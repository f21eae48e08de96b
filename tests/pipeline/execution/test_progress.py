"""Progress of jobs: lines in a log while a job runs, a bar on a terminal, nothing in between results."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import UserError
from pipeline.execution.progress import Progress
from pipeline.execution.reasons import count_reasons
from pipeline.execution.receipts import receipt
from tests.conftest import CommandLine, MakeImages

WAITING = "slow: 0 of 5,000 rows, waiting for the first part\n"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that do not wait for 30 seconds."""
    monkeypatch.setenv("VL3SYN_PROGRESS_SECONDS", "0.05")


@pytest.mark.usefixtures("often")
def test_log_has_lines_while_no_part_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    printed = ""
    with Progress("slow", 5000):
        deadline = time.monotonic() + 30
        while printed.count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
            printed += capsys.readouterr().err
    assert printed.startswith(WAITING * 2)
    assert capsys.readouterr().out == ""


def test_log_of_a_short_job_has_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("short", 100) as progress:
        progress(receipt(100, 0))
    assert capsys.readouterr().err == ""


def test_line_says_rate_errors_idle_share_and_time_left() -> None:
    progress, now = Progress("clip", 3000), time.time()
    errors = ["truncated: image file of 3 bytes", "truncated: image file of 4 bytes", "unsupported format: heif"]
    progress(receipt(1000, 3, now - 10, busy=8, reasons=count_reasons(errors)))
    expected = (
        "clip: 1,000 of 3,000 rows, 100 images/s, 3 errors (most: truncated: image file of 3 bytes), "
        "model idle 20%, 20 s left"
    )
    assert progress.line() == expected


def test_line_of_a_stage_without_a_model_has_no_idle_share() -> None:
    progress = Progress("quality", 200_000, "clip")
    progress(receipt(100, 0, time.time() - 10))
    assert progress.line() == "quality: 100 of 200,000 rows, 10 clips/s, 5 h 33 min left"


def test_line_hides_credentials_and_control_characters() -> None:
    progress = Progress("download", 10)
    errors = ["https://user:hunter2@example.org/a.jpg\x1b[2J: HTTP 404"]
    progress(receipt(1, 1, reasons=count_reasons(errors)))
    assert "hunter2" not in progress.line()
    assert "\x1b" not in progress.line()


@pytest.mark.parametrize("seconds", ["often", "0", "-1", "nan", "inf"])
def test_wrong_number_of_seconds_is_refused(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VL3SYN_PROGRESS_SECONDS", seconds)
    with pytest.raises(UserError, match=re.escape(f"VL3SYN_PROGRESS_SECONDS is {seconds!r}; set it to a number")):
        Progress("clip", 1)


_ON_A_TERMINAL = """
import time
from pipeline.execution.progress import Progress
from pipeline.execution.receipts import receipt
with Progress("clip", 400) as progress:
    progress(receipt(100, 0, time.time() - 10))
    time.sleep(0.5)
"""


def test_terminal_shows_one_bar_and_no_lines() -> None:
    plain = shown_by(_ON_A_TERMINAL)
    assert "━ clip: 100 of 400 rows, 10 images/s, 30 s left" in plain
    assert "\nclip:" not in plain


def test_terminal_says_which_node_a_job_waits_for() -> None:
    waits = "import pipeline.execution.progress as p\np.awaited_node = lambda: 'waiting for a node with 1 GPU'\n"
    assert "clip: waiting for a node with 1 GPU" in shown_by(waits + _ON_A_TERMINAL)


def shown_by(program: str) -> str:
    """Return what a program writes to its terminal, as plain text."""
    leader, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm", "VL3SYN_PROGRESS_SECONDS": "0.1"}
    with os.fdopen(leader, "rb", buffering=0) as screen:
        process = subprocess.Popen([sys.executable, "-c", program], stderr=terminal, env=environment)
        os.close(terminal)
        shown = b""
        try:
            while some := screen.read(65536):
                shown += some
        except OSError:  # how Linux says that the other end is closed
            pass
        assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


@pytest.mark.usefixtures("often")
def test_json_of_a_job_with_progress_is_pure(
    vl3syn_process: CommandLine, tmp_path: Path, make_images: MakeImages
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"pool: {{images: {make_images(tmp_path / 'pool', 60)}}}\nstages: [{{stage: quality}}]\n")
    done = vl3syn_process("run", recipe, "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    assert [(job["stage"], job["idle"]) for job in jobs] == [("index", None), ("quality", None)]
    lines = re.findall(r"^\w+: 0 of .*$", done.stderr, re.M)
    assert "index: 0 of 60 files, waiting for the first part" in lines
