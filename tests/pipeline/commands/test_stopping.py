"""SIGTERM, Ctrl-C and a closed terminal end a run with one line; run again, it ends where one run would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from manifests import open_run
from pipeline.commands.stopping import resumable
from tests.gated_stage import GatedRun
from tests.kills import end, processes, wait_for_end_of

ROOT = Path(__file__).parents[3]
MakeImages = Callable[..., Path]
IMAGES = 60


def _started(gated: GatedRun, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | dict(variables or {})
    command = [sys.executable, *gated.command[1:]]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def _is_stopped_and_goes_on(gated: GatedRun, workers: int, sent: signal.Signals, name: str) -> None:
    with _started(gated) as driver:
        try:
            gated.wait_at_the_gate(workers)
            driver.send_signal(sent)
            _, said = driver.communicate(timeout=60)
        finally:
            driver.kill()
    assert driver.returncode == 128 + sent, said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"vl3syn: stopped by {name}; what is stored stays, run again to go on"
    gated.wait_for_end(60)
    gated.gate.unlink()
    with _started(gated) as again:
        _, said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert len(gated.keys()) == IMAGES, "what was stored is not computed again"
    manifest = open_run(gated.run).manifest().collect()
    assert manifest["double"].to_list() == (2 * manifest["width"]).to_list()
    assert manifest["status"].to_list() == ["kept"] * IMAGES


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (signal.SIGTERM, "SIGTERM"),
        pytest.param(signal.SIGINT, "Ctrl-C", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, "SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_stopped_local_workers_go_on(tmp_path: Path, make_images: MakeImages, sent: signal.Signals, name: str) -> None:
    gated = GatedRun(tmp_path / "gated", make_images(tmp_path / "pool", IMAGES))
    _is_stopped_and_goes_on(gated, 2, sent, name)


def test_stopped_driver_goes_on(tmp_path: Path, make_images: MakeImages) -> None:
    gated = GatedRun(tmp_path / "gated", make_images(tmp_path / "pool", IMAGES), "GatedDriver")
    _is_stopped_and_goes_on(gated, 1, signal.SIGTERM, "SIGTERM")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_stopped_run_with_its_own_ray_goes_on(
    tmp_path: Path, make_images: MakeImages, sent: signal.Signals, name: str
) -> None:
    """Ray has a handler of SIGTERM of its own, which exits with code 15 and says nothing."""
    pool = make_images(tmp_path / "pool", IMAGES)
    gated = GatedRun(tmp_path / "gated", pool, resources="part_rows: 8, actors: 1")
    _is_stopped_and_goes_on(gated, 1, sent, name)


@pytest.mark.slow
def test_sigterm_while_ray_starts_ends_the_run(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", IMAGES)
    gated = GatedRun(tmp_path / "gated", pool, resources="actors: 1")
    mark = f"VL3SYN_TEST={uuid.uuid4().hex}"
    with _started(gated, dict([mark.split("=")])) as driver:
        try:
            while driver.poll() is None and not any("/gcs_server " in command for _, command in processes(mark)):
                time.sleep(0.01)
            driver.terminate()
            _, said = driver.communicate(timeout=60)
            wait_for_end_of(mark)
        finally:
            end(mark)
    assert driver.returncode == 143, said
    assert said.splitlines()[-1] == "vl3syn: stopped by SIGTERM; what is stored stays, run again to go on"


def test_ignored_signal_stays_ignored() -> None:
    """`nohup` ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with resumable():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
