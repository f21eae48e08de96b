"""SIGTERM to a real process: a checkpoint, one line, exit code 143; and the training that goes on is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.training.metrics_log import read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from tests.model.training import training_data

ROOT = Path(__file__).parents[3]


def _recipe(folder: Path) -> dict[str, Any]:
    """Without a checkpoint of its own accord."""
    return {**training_data.recipe(folder, steps=20), "save_every": 1000, "ask": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a training that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("stop")
    train(parse_recipe(_recipe(folder), "test"), folder / "whole")
    return folder


def _started(folder: Path, out: Path, *options: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(_recipe(folder)))
    command = [sys.executable, "-m", "pipeline", "train", str(recipe), "--run", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT)


def _until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout
    assert any(words in line for line in process.stdout), process.communicate()


def _is_undisturbed(out: Path, whole: Path) -> None:
    ours, theirs = (
        [(r["stage"], r["step"], r["loss"]) for r in read_metrics(o) if r["kind"] == "step"] for o in (out, whole)
    )
    assert ours == theirs
    for stage in ("1-first", "2-second"):
        one, other = (load_file(run / stage / "model/model.safetensors") for run in (out, whole))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def _terminated(folder: Path, out: Path, words: str, stage: str) -> None:
    process = _started(folder, out)
    _until(process, words)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    (line,) = [line for line in err.splitlines() if "SIGTERM" in line]
    assert line.startswith(f"vl3syn: SIGTERM: stage {stage} has a checkpoint after step ")
    assert line.endswith("; run the same command to go on")
    assert "Traceback" not in err
    step = int(line.split("after step ")[1].split(";")[0])
    (checkpoint,) = out.glob("*/step-*")
    assert checkpoint.name == f"step-{step:08d}"


def test_stopped_training_resumes_bit_equal_from_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    """Twice: in the first stage and in the second."""
    out = tmp_path / "out"
    _terminated(folder, out, "first 2/20", "first")
    assert len(list(out.glob("*/model"))) == 0
    _terminated(folder, out, "second 1/20", "second")
    train(parse_recipe(_recipe(folder), "test"), out)
    _is_undisturbed(out, folder / "whole")


def _slow(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Send a signal to this process while a checkpoint is written."""
    from model.training import checkpoints

    plain = checkpoints.save

    def save(*arguments: Any) -> None:
        signal.raise_signal(number)  # to this thread: `os.kill` may take its time
        plain(*arguments)

    monkeypatch.setattr(checkpoints, "save", save)


def test_ctrl_c_while_the_checkpoint_is_written_ends_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.training.metrics_log import MetricsLogger

    plain = MetricsLogger.step

    def step(self: MetricsLogger, done: Any) -> None:
        plain(self, done)
        if done.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(MetricsLogger, "step", step)
        _slow(patched, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(parse_recipe(_recipe(folder), "test"), tmp_path / "out")
    assert signal.getsignal(signal.SIGTERM) == before, "a notebook has its own handler back"
    assert not list((tmp_path / "out").glob("*/step-*"))
    train(parse_recipe(_recipe(folder), "test"), tmp_path / "out")
    _is_undisturbed(tmp_path / "out", folder / "whole")


def test_second_sigterm_ends_at_once(folder: Path, tmp_path: Path) -> None:
    """In a process of its own, which sends both to itself: the second while the checkpoint is written."""
    program = (
        "import os, signal, sys, time, yaml\n"
        "from model.training import checkpoints\n"
        "from model.training.metrics_log import MetricsLogger\n"
        "from model.training.recipe import parse_recipe\n"
        "from model.training.run import train\n"
        "plain = MetricsLogger.step\n"
        "def step(self, done): plain(self, done); done.step == 2 and os.kill(os.getpid(), signal.SIGTERM)\n"
        "def save(*given): os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)\n"
        "MetricsLogger.step, checkpoints.save = step, save\n"
        "train(parse_recipe(yaml.safe_load(sys.argv[1]), 'test'), sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, yaml.safe_dump(_recipe(folder)), str(tmp_path / "out")]
    begin = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert time.monotonic() - begin < 30
    assert not list((tmp_path / "out").glob("*/step-*"))


@pytest.mark.slow
def test_workers_write_a_checkpoint_on_sigterm_of_the_launcher(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = _started(folder, out, "--workers", "2", "--cpus", stderr=subprocess.STDOUT)  # Ray may fill a pipe
    _until(process, "first 2/20")
    os.kill(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "SIGTERM: stage first has a checkpoint after step " in said
    assert len(list(out.glob("*/step-*"))) == 1
    train(parse_recipe(_recipe(folder), "test"), out)
    ours, theirs = (
        [(r["stage"], r["step"], r["samples"]) for r in read_metrics(o) if r["kind"] == "step"]
        for o in (out, folder / "whole")
    )
    assert ours == theirs
