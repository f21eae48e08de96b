"""SIGTERM and Ctrl-C: a checkpoint, one line, and the training that goes on is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.training.metrics_log import read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from model.training.stop import TerminatedError
from tests.model.training import training_data

ROOT = Path(__file__).parents[3]
Vl3syn = Callable[..., subprocess.CompletedProcess[str]]


def _recipe(folder: Path, *steps: int) -> dict[str, Any]:
    """Without a checkpoint of its own accord. `steps` are those of the two stages: 20 where a signal comes, and 2."""
    written = training_data.recipe(folder, rows=2)
    for stage, count in zip(written["stages"], steps or (20, 2), strict=True):
        stage["steps"] = count
    return {**written, "save_every": 1000, "ask": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a training that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("stop")
    train(parse_recipe(_recipe(folder), "test"), folder / "whole")
    return folder


def _started(written: dict[str, Any], out: Path, *options: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(written, sort_keys=False))
    command = [sys.executable, "-m", "pipeline", "train", str(recipe), "--run", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT, process_group=0)


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


def _stopped(written: dict[str, Any], out: Path, words: str, stage: str, number: int = signal.SIGTERM) -> None:
    process = _started(written, out)
    _until(process, words)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    *promised, line = [line for line in err.splitlines() if name in line]
    assert promised == (
        ["vl3syn: Ctrl-C: a checkpoint follows this step; again: ends at once"] if name == "Ctrl-C" else []
    )
    assert line.startswith(f"vl3syn: {name}: stage {stage} has a checkpoint after step ")
    assert line.endswith("; run the same command to go on")
    assert "Traceback" not in err
    step = int(line.split("after step ")[1].split(";")[0])
    (checkpoint,) = out.glob("*/step-*")
    assert checkpoint.name == f"step-{step:08d}"


def test_stopped_training_resumes_bit_equal_from_a_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGTERM in the first stage."""
    out, before = tmp_path / "out", _handlers()
    with monkeypatch.context() as patched:
        _signal_after_step_2(patched, signal.SIGTERM)
        with pytest.raises(TerminatedError):
            train(parse_recipe(_recipe(folder), "test"), out)
    assert _handlers() == before
    assert [path.name for path in out.glob("*/step-*")] == ["step-00000002"]
    train(parse_recipe(_recipe(folder), "test"), out)
    _is_undisturbed(out, folder / "whole")


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_stopped_command_says_so_and_has_the_signals_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vl3syn: Vl3syn, number: int, name: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(_recipe(folder), sort_keys=False))
    _signal_after_step_2(monkeypatch, number)
    done = vl3syn("train", tmp_path / "recipe.yaml", "--run", tmp_path / "out")
    assert done.returncode == 128 + number
    line = f"vl3syn: {name}: stage first has a checkpoint after step 2; run the same command to go on"
    assert line in done.stderr.splitlines()
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_training_stopped_twice_resumes_from_each_checkpoint(folder: Path, tmp_path: Path) -> None:
    """The command: by SIGTERM in the first stage, and by Ctrl-C in the second."""
    out, written = tmp_path / "out", _recipe(folder, 20, 20)
    _stopped(written, out, "first 2/20", "first")
    assert len(list(out.glob("*/model"))) == 0
    _stopped(written, out, "second 1/20", "second", signal.SIGINT)
    for run in (out, tmp_path / "whole"):
        train(parse_recipe(written, "test"), run)
    _is_undisturbed(out, tmp_path / "whole")


def _slow(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Send a signal to this process while a checkpoint is written."""
    from model.training import checkpoints

    plain = checkpoints.save

    def save(*arguments: Any) -> None:
        signal.raise_signal(number)  # to this thread: `os.kill` may take its time
        plain(*arguments)

    monkeypatch.setattr(checkpoints, "save", save)


def _signal_after_step_2(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    from model.training.metrics_log import MetricsLogger

    plain = MetricsLogger.step

    def step(self: MetricsLogger, done: Any) -> None:
        plain(self, done)
        if done.step == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(MetricsLogger, "step", step)


def _handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_ctrl_c_in_a_notebook_leaves_a_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = _handlers()
    with monkeypatch.context() as patched:
        _signal_after_step_2(patched, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(parse_recipe(_recipe(folder), "test"), tmp_path / "out")
    assert "Ctrl-C: stage first has a checkpoint after step 2; run the same command to go on" in caplog.text
    assert [path.name for path in (tmp_path / "out").glob("*/step-*")] == ["step-00000002"]
    assert _handlers() == before, "a notebook has its own handlers back"


def test_ctrl_c_after_the_last_step_reaches_the_caller(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.training import run

    plain = run.export

    def export(trainer: Any, before: Any) -> None:
        if trainer.stage.name == "second":
            signal.raise_signal(signal.SIGINT)
        plain(trainer, before)

    monkeypatch.setattr(run, "export", export)
    with pytest.raises(KeyboardInterrupt):
        train(parse_recipe(_recipe(folder, 1, 1), "test"), tmp_path / "out")
    assert (tmp_path / "out/2-second/model/config.json").is_file()


@pytest.mark.thorough
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_while_the_checkpoint_is_written_ends_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    before = _handlers()
    with monkeypatch.context() as patched:
        _signal_after_step_2(patched, first)
        _slow(patched, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(parse_recipe(_recipe(folder), "test"), tmp_path / "out")
    assert _handlers() == before, "a notebook has its own handlers back"
    assert not list((tmp_path / "out").glob("*/step-*"))
    train(parse_recipe(_recipe(folder), "test"), tmp_path / "out")
    _is_undisturbed(tmp_path / "out", folder / "whole")


def test_ignored_ctrl_c_stays_ignored(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells start background jobs so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _signal_after_step_2(monkeypatch, signal.SIGINT)
        last = train(parse_recipe(_recipe(folder, 3, 1), "test"), tmp_path / "out")
    finally:
        signal.signal(signal.SIGINT, before)
    assert last == tmp_path / "out/2-second/model"


@pytest.mark.thorough
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
        "def save(*given): os.kill(os.getpid(), signal.SIGTERM); time.sleep(600)\n"
        "MetricsLogger.step, checkpoints.save = step, save\n"
        "train(parse_recipe(yaml.safe_load(sys.argv[1]), 'test'), sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, yaml.safe_dump(_recipe(folder), sort_keys=False), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert not list((tmp_path / "out").glob("*/step-*"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_workers_write_a_checkpoint_when_the_launcher_is_stopped(
    folder: Path, tmp_path: Path, number: int, name: str
) -> None:
    out = tmp_path / "out"
    # One pipe for both: Ray may fill that of stderr.
    process = _started(_recipe(folder), out, "--workers", "2", "--cpus", stderr=subprocess.STDOUT)
    _until(process, "first 2/20")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        os.kill(process.pid, number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    assert f"{name}: stage first has a checkpoint after step " in said
    assert len(list(out.glob("*/step-*"))) == 1
    train(parse_recipe(_recipe(folder), "test"), out)
    ours, theirs = (
        [(r["stage"], r["step"], r["samples"]) for r in read_metrics(o) if r["kind"] == "step"]
        for o in (out, folder / "whole")
    )
    assert ours == theirs
