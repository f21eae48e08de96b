"""What a person sees of a training, and what is kept of it, over stops and starts."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from model.training.console import show_log
from model.training.metrics_log import METRICS, MetricsLogger, ends, forget, read_metrics
from model.training.trainer import Step


@pytest.fixture(autouse=True)
def _console() -> None:
    show_log()


def step(number: int, of: int = 10, **changes: Any) -> Step:
    values: dict[str, Any] = {
        "step": number,
        "progress": number / of,
        "loss": 3.0 - number / 8,
        "rates": {"vision": 2e-6, "language": 1e-5},
        "grad_norm": 1.5,
        "samples": 12,
        "tokens": 3000,
        "labelled": 700,
        "patches": 9000,
        "packing_efficiency": 0.987,
        "flops": 4e12,
        "seconds": 2.0,
        "data_time": 0.02,
        "skipped": (),
    }
    return Step(**(values | changes))


def go(folder: Path, steps: range, stage: str = "one", of: int = 10, done: int | None = None) -> None:
    """Steps of one process; `done` are those of the checkpoint that it begins with."""
    progress = MetricsLogger(folder, stage, of, steps.start - 1 if done is None else done, None)
    for number in steps:
        progress.step(step(number, of))
    progress.close()


def losses(folder: Path) -> list[tuple[str, int, float]]:
    return [(line["stage"], line["step"], line["loss"]) for line in read_metrics(folder) if line["kind"] == "step"]


def test_step_is_printed_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = MetricsLogger(tmp_path, "alignment", 10, 0, 1e13)
    progress.step(step(1))
    progress.close()
    assert capsys.readouterr().out == (
        "alignment 1/10  loss 2.8750  lr vision 2.0e-06 language 1.0e-05  6.0 samples/s  1,500 tok/s  "
        "4,500 patches/s  fill 0.99  MFU 20.0%  data 1.0%  ETA ?\n"
    )


def test_line_without_peak_or_length_has_no_mfu_or_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = MetricsLogger(tmp_path, "one", None, 0, None)
    progress.step(step(3))
    progress.close()
    line = capsys.readouterr().out
    assert line.startswith("one 3  loss ")
    assert "MFU" not in line
    (entry,) = read_metrics(tmp_path)
    assert entry["mfu"] is None


def test_every_step_is_stored_when_fewer_lines_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = MetricsLogger(tmp_path, "one", 10, 0, None, every=4)
    for number in range(1, 11):
        progress.step(step(number, progress=number / 10))
    progress.close()
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["4/10", "8/10", "10/10"]
    assert [number for _, number, _ in losses(tmp_path)] == list(range(1, 11))


def test_metrics_store_the_values_of_each_step(tmp_path: Path) -> None:
    progress = MetricsLogger(tmp_path, "one", 10, 0, 1e13)
    progress.step(step(1, skipped=["qa: qa.jsonl line 3: no such file"]))
    progress.held_out(1, {"qa": 2.5})
    progress.answers(1, [("qa: line 7", "A cat.\nIt sits.", "A dog.", True)])
    progress.close()
    first, second, third = (json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines())
    values = vars(step(1))
    assert first == {
        "kind": "step",
        "stage": "one",
        "fill": values.pop("packing_efficiency"),
        "waiting": values.pop("data_time"),
        **values,
        "mfu": 0.2,
        "skipped": ["qa: qa.jsonl line 3: no such file"],
    }
    assert second == {"kind": "held_out", "stage": "one", "step": 1, "losses": {"qa": 2.5}}
    assert third == {
        "kind": "answer",
        "stage": "one",
        "step": 1,
        "sample": "qa: line 7",
        "answer": "A cat.\nIt sits.",
        "reference": "A dog.",
        "cut": True,
    }


def test_answers_and_held_out_losses_are_printed_in_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = MetricsLogger(tmp_path, "one", 10, 0, None)
    progress.held_out(1, {"qa": 2.5, "captions": 1.25})
    progress.answers(
        1,
        [
            ("qa: line 7", "A cat.\n\nIt sits.", "x" * 1000, False),
            ("qa: line 8", "", "No.", False),
            ("qa: line 9", "A cat and a", "A cat and a dog.", True),
        ],
    )
    progress.close()
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "  held out: qa 2.5000, captions 1.2500",
        f"  qa: line 7: 'A cat. It sits.'; reference '{'x' * 160}…'",
        "  qa: line 8: ''; reference 'No.'",
        "  qa: line 9: 'A cat and a…'; reference 'A cat and a dog.'",
    ]


def test_repeated_steps_are_stored_once(tmp_path: Path) -> None:
    go(tmp_path, range(1, 8))
    go(tmp_path, range(5, 11))  # its checkpoint was of step 4
    assert losses(tmp_path) == [("one", n, 3.0 - n / 8) for n in range(1, 11)]


def test_repeated_lines_at_the_end_of_a_stage_are_stored_once(tmp_path: Path) -> None:
    for _ in range(2):  # killed behind its last checkpoint, before it was exported
        progress = MetricsLogger(tmp_path, "one", 3, 3, None)
        progress.held_out(3, {"qa": 2.5})
        progress.answers(3, [("qa: line 7", "A.", "B.", False), ("qa: line 8", "A.", "B.", False)])
        progress.close()
    assert [(line["kind"], line.get("sample")) for line in read_metrics(tmp_path)] == [
        ("held_out", None),
        ("answer", "qa: line 7"),
        ("answer", "qa: line 8"),
    ]


def test_metrics_of_other_stages_are_kept(tmp_path: Path) -> None:
    go(tmp_path, range(1, 4), "one", 3)
    go(tmp_path, range(1, 4), "two", 5)
    go(tmp_path, range(1, 6), "two", 5)  # killed before its first checkpoint
    assert [(stage, n) for stage, n, _ in losses(tmp_path)] == [
        *(("one", n) for n in (1, 2, 3)),
        *(("two", n) for n in range(1, 6)),
    ]


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_truncated_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    go(tmp_path, range(1, 4))
    file = tmp_path / METRICS
    file.write_bytes(file.read_bytes()[:-cut])
    assert [n for _, n, _ in losses(tmp_path)] == ([1, 2, 3] if cut == 1 else [1, 2])
    go(tmp_path, range(3, 6))
    assert [n for _, n, _ in losses(tmp_path)] == [1, 2, 3, 4, 5]
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_forgetting_steps_leaves_no_partial_or_empty_file(tmp_path: Path) -> None:
    forget(tmp_path / METRICS, "one", 3)
    assert read_metrics(tmp_path) == []
    go(tmp_path, range(1, 4))
    forget(tmp_path / METRICS, "one", 1)
    assert [n for _, n, _ in losses(tmp_path)] == [1]
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, "tensorboard"}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a stage."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings that were killed after step 7, more than a second ago: by it TensorBoard names and sorts files."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("stopped")
    for name in ("saved", "unsaved"):
        go(folder / name, range(1, 8))
    time.sleep(1.1)
    return folder


def test_tensorboard_shows_each_step_once(stopped: Path) -> None:
    progress = MetricsLogger(stopped / "saved", "one", 10, 4, 1e13)
    for number in range(5, 11):
        progress.step(step(number))
    progress.held_out(10, {"qa": 2.5})
    progress.answers(10, [("qa: line 7", "A cat.", "A dog.", False)])
    progress.close()
    shown = scalars(stopped / "saved/tensorboard/one")
    assert shown["loss"] == [(n, pytest.approx(3.0 - n / 8)) for n in range(1, 11)]
    assert shown["mfu"] == [(n, pytest.approx(0.2)) for n in range(5, 11)]
    assert shown["held_out/qa"] == [(10, 2.5)]
    assert shown["rate/vision"][-1] == (10, pytest.approx(2e-6))
    assert {"grad_norm", "fill", "samples_per_second", "tokens_per_second", "patches_per_second"} <= shown.keys()


def test_tensorboard_drops_an_attempt_without_a_checkpoint(stopped: Path) -> None:
    go(stopped / "unsaved", range(1, 4))
    assert [n for n, _ in scalars(stopped / "unsaved/tensorboard/one")["loss"]] == [1, 2, 3]


def eta(line: str) -> str:
    match = re.search(r"ETA (\S+)$", line)
    assert match
    return match[1]


def test_eta_follows_the_time_of_the_steps_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    progress = MetricsLogger(tmp_path, "one", 1000, 99, None)
    now += 500.0  # of warming up, which says nothing about the rest
    assert eta(progress.line(step(100, 1000))) == "?"
    now += 10.0
    assert eta(progress.line(step(101, 1000))) == "2:29:50"  # 899 more
    now += 30.0
    assert eta(progress.line(step(102, 1000))) == "4:59:20"  # 898 at 20 s each
    progress.close()


def test_eta_without_progress_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    progress = MetricsLogger(tmp_path, "one", None, 0, None)
    assert eta(progress.line(step(1, progress=0.0))) == "?"
    now += 5.0
    assert eta(progress.line(step(2, progress=0.0))) == "?"
    assert eta(progress.line(step(3, progress=0.5))) == "0:00:05"
    assert eta(progress.line(step(4, progress=1.0))) == "0:00:00"
    progress.close()


def test_ends_are_means_of_the_first_and_last_losses() -> None:
    assert ends([float(loss) for loss in range(30, 0, -1)]) == (25.5, 5.5)
    assert ends([3.0, 1.0]) == (2.0, 2.0)


GOOD = b'{"kind": "step", "stage": "one", "step": 1, "loss": 2.0}\n'


@pytest.mark.parametrize("bad", [b"\xff\xfe{", b'{"kind": "st', b"7", b'{"kind": "step"}', b"[" * 100_000, b"\0" * 9])
def test_damaged_line_of_metrics_is_named(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / METRICS).write_bytes(GOOD + bad + b"\n" + GOOD)
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is damaged: copy the file again, or delete the line"):
        MetricsLogger(tmp_path, "one", None, 1, None)
    (tmp_path / METRICS).write_bytes(GOOD + bad)  # cut off by a kill
    MetricsLogger(tmp_path, "one", None, 1, None).close()
    assert (tmp_path / METRICS).read_bytes() == GOOD
