"""The proof of a GPU: all of its lines at tiny sizes on the CPU, and what a line that fails does to the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
from gpu_lines.proof import PRELOADED, Figure, Line, Processes
from gpu_proof import LINES
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LIGHT = ("torch", "transformers", "numpy", "pillow", "safetensors", "pydantic")
"""All that the lines of the model need."""

MODEL = [line.name for line in LINES if not line.packages]
PIPELINE = {line.name: line.packages for line in LINES if line.packages}

ONLY = """
import sys
from importlib.machinery import PathFinder

class Only(PathFinder):
    def find_spec(name, path=None, target=None):
        return None if path is None and name in {hidden!r} else PathFinder.find_spec(name, path, target)

sys.meta_path = [Only if finder is PathFinder else finder for finder in sys.meta_path]
"""

FAILING = """
import os, signal, subprocess, time
from gpu_lines.proof import Figure

def crash(place):
    yield Figure("before", 1)
    os.kill(os.getpid(), signal.SIGSEGV)

def hang(place):
    yield Figure("sleeper", subprocess.Popen(["sleep", "600"]).pid)
    time.sleep(600)

def error(place):
    yield Figure("before", 1)
    raise RuntimeError("two\\nlines")

def slow(place):
    yield Figure("seconds", 3.5, "s", most=2)

def poisoned(place):
    if os.getppid() != {pid}:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, …")
    yield Figure("right", 1)

def right(place):
    yield Figure("files", len(os.listdir(place.folder)))
"""


def dry_run(folder: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the lines by name."""
    command = [sys.executable, "benchmarks/gpu_proof.py", "--dry", "--json", str(folder / "proof.json"), *options]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (folder / "proof.json").is_file(), done.stderr
    printed = json.loads((folder / "proof.json").read_text())
    return done.returncode, {line["line"]: line for line in printed["lines"]}


def closure(names: Iterator[str] | tuple[str, ...]) -> set[str]:
    """These distributions and all that they require."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for text in requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return found


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_lines_of_the_model_run_on_six_packages(tmp_path: Path) -> None:
    light = closure(LIGHT) | {"vl3syn"}
    hidden = {
        package
        for package, distributions in packages_distributions().items()
        if not light & {canonicalize_name(name) for name in distributions}
    }
    assert {"polars", "pyarrow", "av", "ray", "peft", "tensorboard", "matplotlib", "torchvision"} <= hidden
    (tmp_path / "sitecustomize.py").write_text(ONLY.format(hidden=hidden))
    code, lines = dry_run(tmp_path)
    failed = {name: line["message"] + line["log"] for name, line in lines.items() if line["state"] == "failed"}
    assert (code, failed) == (0, {})
    assert {name for name, line in lines.items() if line["state"] == "ok"} == set(MODEL)
    skipped = {name: line["message"] for name, line in lines.items() if line["state"] == "skipped"}
    assert skipped == {name: f"no {packages[0]}" for name, packages in PIPELINE.items()}
    assert all(lines[name]["figures"] for name in MODEL)


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_lines_of_the_pipeline_run_at_tiny_sizes(tmp_path: Path) -> None:
    code, lines = dry_run(tmp_path, "--only", ";".join(PIPELINE))
    failed = {name: line["message"] + line["log"] for name, line in lines.items() if line["state"] == "failed"}
    assert (code, failed) == (0, {})
    assert {name for name, line in lines.items() if line["state"] == "skipped"} <= {"lmdeploy's arguments"}


@pytest.mark.gpu
@pytest.mark.timeout(900)
def test_all_lines_hold_on_a_gpu() -> None:
    done = subprocess.run([sys.executable, "benchmarks/gpu_proof.py"], stdout=subprocess.PIPE, text=True)
    print(f"\n{done.stdout}")
    assert done.returncode == 0


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    (tmp_path / "failing_lines.py").write_text(FAILING.replace("{pid}", str(os.getpid())))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("gpu_lines.proof.PRELOADED", [])
    with Processes(dry=False, end=time.perf_counter() + 100) as each:
        yield each


def test_line_that_fails_stops_no_other(processes: Processes) -> None:
    names = ("crash", "error", "slow", "right")
    outcomes = {name: processes.run(Line(name, f"failing_lines:{name}", 60)) for name in names}
    assert {name: (outcome.state, outcome.message) for name, outcome in outcomes.items()} == {
        "crash": ("failed", "the process died (exit code -11)"),
        "error": ("failed", "RuntimeError: two lines"),
        "slow": ("failed", "seconds: 3.5 s, ≤ 2: MISSED"),
        "right": ("ok", ""),
    }
    assert outcomes["crash"].figures == outcomes["error"].figures == [Figure("before", 1)]
    assert "raise RuntimeError" in outcomes["error"].log


def test_lines_begin_anew_where_cuda_cannot_be_copied(processes: Processes) -> None:
    """Python's server of processes would have touched the GPU: then each line is a child of the script itself."""
    outcome = processes.run(Line("poisoned", "failing_lines:poisoned", 60))
    assert (outcome.state, outcome.message, outcome.figures) == ("ok", "", [Figure("right", 1)])


def test_line_that_hangs_ends_with_all_it_started(processes: Processes) -> None:
    outcome = processes.run(Line("hang", "failing_lines:hang", 5))
    assert (outcome.state, outcome.message) == ("failed", "not done after 5 s")
    (sleeper,) = outcome.figures
    for _ in range(50):
        status = Path(f"/proc/{sleeper.value}/status")
        if not status.is_file() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("what the line has started still runs")


def test_lines_end_with_the_time_for_all(tmp_path: Path) -> None:
    with Processes(dry=False, end=time.perf_counter()) as each:
        outcome = each.run(Line("right", "failing_lines:right", 60))
    assert (outcome.state, outcome.message) == ("failed", "not run: the time for all lines is over")


def test_limits_of_all_lines_are_below_what_ends_them() -> None:
    assert max(line.seconds for line in LINES) <= 100
    assert len({line.name for line in LINES}) == len(LINES)


@pytest.mark.parametrize(
    ("figure", "shown", "limit", "met"),
    [
        (Figure("a", 12345.6, "tokens/s"), "12,346 tokens/s", "", True),
        (Figure("a", 0.01234, "s", most=0.02), "0.0123 s", "≤ 0.02: met", True),
        (Figure("a", 3, most=2), "3", "≤ 2: MISSED", False),
        (Figure("a", 3, least=3.5, most=4), "3", "≤ 4, ≥ 3.5: MISSED", False),
        (Figure("a", float("nan"), most=2), "nan", "≤ 2: MISSED", False),
        (Figure("a", None, "GiB", most=2), "–", "", True),
        (Figure("a", "flash"), "flash", "", True),
    ],
)
def test_figure_tells_whether_its_limit_is_kept(figure: Figure, shown: str, limit: str, met: bool) -> None:
    assert (figure.shown, figure.limit, figure.met) == (shown, limit, met)


@pytest.mark.thorough
def test_preloaded_modules_do_not_ask_for_a_gpu() -> None:
    """A process that has asked cannot be copied: CUDA would not begin in the copy."""
    code = f"""
import importlib, torch
calls = []
for module, name in ((torch.cuda, "is_available"), (torch.cuda, "device_count"), (torch._C, "_cuda_getDeviceCount")):
    setattr(module, name, lambda *a, **k: calls.append(1) or 0)
for name in {PRELOADED!r}:
    importlib.import_module(name)
assert not calls
"""
    subprocess.run([sys.executable, "-c", code], check=True)
