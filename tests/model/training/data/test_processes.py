"""Processes that prepare samples: the same rows, errors that name the sample, no process that outlives its trainer."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from core import cpus
from core.errors import UserError
from model import Processor
from model.images import normalise
from model.training.data.annotations import AnnotationSource
from model.training.data.loader import Loader, StepRows
from model.training.data.prepare import Preparer
from model.training.data.processes import Processes, default_count
from model.training.data.sampler import MixtureSampler
from model.training.data.samples import Sample
from model.training.data.source import Source
from model.training.stage import Stage
from tests.model.training import training_data

ROOT = Path(__file__).parents[4]


class Own(Source):
    """A source of a user's own, which cannot be pickled."""

    def __init__(self, name: str, contents: list[Any]) -> None:
        self.name, self.blocks, self._contents, self._lock = name, (len(contents),), contents, threading.Lock()

    def sample(self, row: int) -> Sample:
        with self._lock:
            content = self._contents[row]
        return Sample(
            f"{self.name}: {row}", [{"role": "user", "content": content}, {"role": "assistant", "content": "!"}]
        )


def loader(source: Source, processes: int, **settings: Any) -> Loader:
    written = {"tokens": 256, "visual_tokens": 64, "rows": 4, "epochs": 1.0, "pruning": {}, **settings}
    stage = Stage.model_validate({"name": "s", "learning_rates": {"": 1.0}, "mixture": {source.name: 1.0}, **written})
    sampler = MixtureSampler([source], stage.mixture, {}, 3)
    return Loader(sampler, Processor.tiny(), stage, processes=processes)


def all_steps(opened: Loader) -> Iterator[StepRows]:
    try:
        while (step := next(opened)).rows:
            yield step
        yield step
    finally:
        opened.close()


def mixed(folder: Path) -> AnnotationSource:
    """Images, text, and three bad samples."""
    file = training_data.annotations(folder, 30)
    (folder / "bad.png").write_bytes(training_data.picture(1)[:60])
    turns = [{"from": "human", "value": "<image>\nGood?"}, {"from": "gpt", "value": "Yes."}]
    with open(file, "a") as opened:
        for image in ("bad.png", "gone.png", "qa.jsonl"):
            opened.write(json.dumps({"image": image, "conversations": turns}) + "\n")
    return AnnotationSource("qa", str(file))


def described(step: StepRows) -> Any:
    rows = [
        ([vars(sample) for sample in row.samples], {k: v.tolist() for k, v in row.inputs.items()}) for row in step.rows
    ]
    return rows, step.skipped, step.consumed_samples, step.virtual_ranks


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.thorough), 2])
def test_rows_do_not_depend_on_the_number_of_processes(tmp_path: Path, processes: int) -> None:
    source = mixed(tmp_path)
    alone, others = ([described(step) for step in all_steps(loader(source, n))] for n in (0, processes))
    assert len(alone) > 2
    assert sum(len(step[1]) for step in alone) == 3
    assert others == alone


@pytest.mark.parametrize("processes", [0, 1])
def test_rows_have_the_pixels_of_the_processor_to_the_bit(processes: int) -> None:
    pictures = [training_data.picture(number, 90 + number) for number in range(6)]
    source = Own("own", [[{"type": "image", "image": picture}, "What?"] for picture in pictures])
    (step, _) = all_steps(loader(source, processes, rows=1, tokens=4096))
    (row,) = step.rows
    assert row.inputs.pixel_values.dtype == torch.uint8
    config = Processor.tiny().config.model_copy(update={"max_tokens": 64})
    processor = Processor(Processor.tiny().tokenizer, config)
    expected = [processor(source.sample(int(s.name[-1])).conversation).pixel_values for s in row.samples]
    assert len(expected) == 6
    assert torch.equal(normalise(row.inputs.pixel_values), torch.cat(expected))


def test_memory_is_used_again_but_not_that_of_a_living_sample() -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("only Linux has it")
    pictures = [training_data.picture(number, 224) for number in range(4)]
    source = Own("own", [[{"type": "image", "image": picture}, "What?"] for picture in pictures])
    processes = Processes(1, Preparer(Processor.tiny(), 4096, 4096))
    try:
        kept = processes.prepare(source.sample(0), 0)[0].inputs.pixel_values
        places = [
            processes.prepare(source.sample(number), number)[0].inputs.pixel_values.data_ptr() for number in (1, 2, 3)
        ]
    finally:
        processes.close()
    assert len({kept.data_ptr(), *places}) == 2, "one place for the first sample, one for those after it"
    assert torch.equal(normalise(kept), Processor.tiny()(source.sample(0).conversation).pixel_values)


def test_rows_are_packed_in_a_thread_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from model.packed_row import PackedRow
    from model.training.recipe import parse_recipe
    from model.training.run import train

    def pack(rows: Any) -> PackedRow:
        threads.add(threading.current_thread())
        return plain(rows)

    threads: set[threading.Thread] = set()
    plain = PackedRow.pack
    written = training_data.recipe(tmp_path, steps=2) | {"ask": 0}
    written["sources"] = {name: {**source, "held_out": 0} for name, source in written["sources"].items()}
    with monkeypatch.context() as patched:
        patched.setattr(PackedRow, "pack", pack)
        train(parse_recipe({**written, "stages": written["stages"][:1]}, "test"), tmp_path / "out")
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.thorough
def test_source_with_a_lock_works_with_processes() -> None:
    """Each sample comes once; the source itself cannot be sent to a process."""
    source = Own("own", [f"Say {number}." for number in range(8)])
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(source)
    names = [sample.name for step in all_steps(loader(source, 1)) for row in step.rows for sample in row.samples]
    assert sorted(names) == [f"own: {number}" for number in range(8)]


def test_bug_in_a_process_is_raised_with_its_traceback() -> None:
    class Broken(Own):
        def sample(self, row: int) -> Sample:
            return Sample("broken", [{"role": "assistant"}])

    opened = loader(Broken("own", ["Well?"]), 1)
    with pytest.raises(KeyError, match="content") as error:
        next(opened)
    opened.close()
    assert "in _spoken" in "".join(error.value.__notes__)


def children(parent: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(ppid) == parent and state != "Z":
            found.append(int(stat.parent.name))
    return found


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_process_ends_the_run_and_names_its_sample(processes: int) -> None:
    before = set(children(os.getpid()))
    opened = loader(Own("own", ["Say it."]), processes, epochs=50.0)
    (victim, *others) = until(lambda: set(children(os.getpid())) - before)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(
        UserError, match=r"^own: 0: the process that prepared it has died \(SIGKILL\): lower `workers` if"
    ):
        for _ in all_steps(opened):
            pass
    assert not set(children(os.getpid())) & {victim, *others}, "close ends all processes"


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_when_their_trainer_is_killed(tmp_path: Path) -> None:
    """The trainer is a script without `if __name__ == "__main__"`, which its processes must not run again."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import yaml\n"
        "from model.training.recipe import parse_recipe\n"
        "from model.training.run import train\n"
        "print('once', flush=True)\n"
        "train(parse_recipe(yaml.safe_load(sys.argv[1]), 'test'), sys.argv[2])\n"
    )
    recipe = {**training_data.recipe(tmp_path, steps=10**6), "workers": 2, "evaluate_every": 10**6, "save_every": 10**6}
    command = [sys.executable, str(script), yaml.safe_dump(recipe), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = tmp_path / "out/metrics.jsonl"
    until(lambda: metrics.exists() and "loss" in metrics.read_text(), 200)
    started = children(process.pid)
    assert len(started) == 2
    process.kill()
    out, _ = process.communicate()
    assert out.count("once") == 1
    assert "Traceback" not in out
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 20)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_signals_to_a_process_leave_it_at_work(capfd: pytest.CaptureFixture[str]) -> None:
    source, before = Own("own", ["Say it.", "Say it again."]), set(children(os.getpid()))
    processes = Processes(1, Preparer(Processor.tiny(), 4096, 4096))
    try:
        (process,) = set(children(os.getpid())) - before
        lengths = []
        for row in (0, 1):  # before it has begun, and at work
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(process, number)
            (prepared,) = processes.prepare(source.sample(row), row)
            lengths.append(prepared.tokens)
    finally:
        processes.close()
    assert lengths[1] > lengths[0] > 0
    assert capfd.readouterr().err == ""


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_signal_to_the_whole_group_leaves_processes_quiet(tmp_path: Path, number: int) -> None:
    """Slurm sends SIGTERM to all processes, a terminal SIGINT: processes go on until the trainer ends them."""
    file = tmp_path / "recipe.yaml"
    recipe = {**training_data.recipe(tmp_path, steps=10**6), "workers": 1, "evaluate_every": 10**6, "save_every": 10**6}
    file.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "pipeline", "train", str(file), "--run", str(tmp_path / "out")]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, start_new_session=True)
    assert process.stdout
    assert any("first 2/" in line for line in process.stdout), process.communicate()
    started = children(process.pid)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else 130), err
    assert "Traceback" not in err
    assert "has a checkpoint after step" in err
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 20)


def test_default_number_shares_the_cores_among_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(cores: int, trainers: int) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        return default_count({"LOCAL_WORLD_SIZE": str(trainers)})

    monkeypatch.setattr(cpus, "_QUOTA", Path("/without/a/quota"))
    assert [count(cores, 1) for cores in (1, 2, 3, 8, 18, 192)] == [0, 0, 1, 6, 16, 16]
    assert [count(192, trainers) for trainers in (8, 16)] == [16, 10]


def test_default_number_obeys_the_quota_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(192)), raising=False)
    monkeypatch.setattr(cpus, "_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text("600000 100000\n")
    assert default_count({}) == 4
