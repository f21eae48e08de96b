"""Two commands on one run directory: the second is refused in one line, takes over, or only looks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manifests import open_run
from manifests.lease import FILE
from manifests.storage import ASIDE

MakeImages = Callable[..., Path]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]

GONE = (
    "gone: another command has worked there meanwhile, or somebody deleted it; "
    "this command stops, and what it stored counts"
)

# A stage that waits for a file, in every process of the command's.
SITE = """
import os, time
from PIL import JpegImagePlugin

def waits(self, *arguments):
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)
    return method(self, *arguments)

method, JpegImagePlugin.JpegImageFile.load = JpegImagePlugin.JpegImageFile.load, waits
"""


@pytest.fixture
def recipe(tmp_path: Path, make_images: MakeImages) -> Path:
    path = tmp_path / "recipe.yaml"
    stages = "[{stage: aspect_ratio, keep: {max: 2}}, {stage: hashes}]"
    path.write_text(f"pool: {{images: {make_images(tmp_path / 'pool', 5)}}}\nstages: {stages}\n")
    return path


@contextmanager
def running(recipe: Path, run: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that has indexed the pool and waits in the stage `hashes`, until the file `go` is there."""
    site = recipe.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.getcwd()}", "GO": str(recipe.parent / "go")}
    command = [sys.executable, "-m", "pipeline", "run", str(recipe), "--run", str(run)]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not list(run.glob("stages/aspect_ratio-*/part-*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        yield process
    finally:
        (recipe.parent / "go").touch()
        process.kill()
        process.communicate()


def _files(run: Path) -> list[Path]:
    """Without what the first command is just writing, such as its beat."""
    return sorted(path for path in run.rglob("*") if not path.name.startswith(ASIDE))


def test_second_command_is_refused_until_the_first_ends(recipe: Path, tmp_path: Path, vl3syn: CommandLine) -> None:
    run = tmp_path / "run"
    with running(recipe, run) as first:
        for command in (
            ("run", recipe, "--run", run),
            ("index", "--run", run),
            ("filter", "aspect-ratio", "--max", 3, "--run", run),
            ("retry", run, "index"),
            ("compact", run),
            ("publish", "--run", run),
        ):
            done = vl3syn(*command)
            assert (done.returncode, done.stdout) == (1, ""), command
            assert done.stderr.startswith(
                f"vl3syn: {run} is being worked on by host {socket.gethostname()}, process {first.pid} since "
            )
            assert done.stderr.count("\n") == 1
        before = _files(run)
        for looking in (
            ("funnel", run),
            ("explain", run, "000001.jpg"),
            ("report", run, "--out", tmp_path / "r.html"),
            ("look", run, "--out", tmp_path / "l.html"),
            ("run", recipe, "--run", run, "--dry-run"),
        ):
            assert vl3syn(*looking).returncode == 0, looking
        assert _files(run) == before
        (tmp_path / "go").touch()
        _, errors = first.communicate(timeout=120)
        assert first.returncode == 0, errors
    assert not (run / FILE).exists()
    assert open_run(run).funnel().survivors == 5
    assert vl3syn("compact", run).returncode == 0


@pytest.mark.thorough
def test_command_after_a_killed_one_goes_on_at_once(recipe: Path, tmp_path: Path, vl3syn: CommandLine) -> None:
    run = tmp_path / "run"
    with running(recipe, run) as first:
        first.kill()
        first.wait()
        assert (run / FILE).exists()
    done = vl3syn("run", recipe, "--run", run)
    assert done.returncode == 0, done.stderr
    assert "watching" not in done.stderr
    assert not (run / FILE).exists()


@pytest.mark.slow
def test_suspended_command_stops_in_one_line(recipe: Path, tmp_path: Path, vl3syn: CommandLine) -> None:
    """The lease file says how long a driver may be silent: here one second instead of a minute."""
    run = tmp_path / "run"
    with running(recipe, run) as first:
        first.send_signal(signal.SIGSTOP)
        lease = json.loads((run / FILE).read_text())
        (run / FILE).write_text(json.dumps({**lease, "stale_s": 1}))
        time.sleep(1.1)
        done = vl3syn("filter", "aspect-ratio", "--max", 3, "--run", run)
        assert done.returncode == 0, done.stderr
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate(timeout=120)
        last = errors.splitlines()[-1]
        assert (first.returncode, last) == (
            1,
            f"vl3syn: {run}: {FILE} is {GONE}",
        )
        assert "Traceback" not in errors
    assert vl3syn("run", recipe, "--run", run).returncode == 0
    assert open_run(run).funnel().survivors == 5


@pytest.mark.thorough
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_command_that_is_ended_leaves_no_lease(end: signal.Signals, recipe: Path, tmp_path: Path) -> None:
    with running(recipe, tmp_path / "run") as first:
        first.send_signal(end)
        (tmp_path / "go").touch()
        first.communicate(timeout=120)
        assert first.returncode != 0
    assert not (tmp_path / "run" / FILE).exists()


def test_command_that_is_refused_makes_no_folder(recipe: Path, tmp_path: Path, vl3syn: CommandLine) -> None:
    for pool in (tmp_path / "nothing", tmp_path / "site"):
        recipe.write_text(f"pool: {{images: {pool}}}\nstages: []\n")
        done = vl3syn("run", recipe, "--run", tmp_path / "new" / "run")
        assert done.returncode == 1
        assert not (tmp_path / "new").exists()
    assert vl3syn("filter", "aspect-ratio", "--run", tmp_path / "new" / "run").returncode == 1
    assert not (tmp_path / "new").exists()
