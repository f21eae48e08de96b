"""Log a training's metrics: a line per step to the logger `vl3syn.train`, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError, reading

if TYPE_CHECKING:
    from model.training.trainer import Step

log = logging.getLogger("vl3syn.train")

METRICS = "metrics.jsonl"

_KEYS = {"packing_efficiency": "fill", "data_time": "waiting"}
"""Keys of metrics.jsonl that are not the field's name."""

_FLUSH = 10  # maximum delay of TensorBoard's files, in seconds


class MetricsLogger:
    """Log the metrics of one stage.

    metrics.jsonl has one object per line; its `kind` is `step`, `held_out` or `answer`. On resume, lines of steps that
    will be repeated are dropped, and a line that already exists is not written again. So each line occurs once.
    """

    def __init__(
        self, folder: Path, stage: str, steps: int | None, done: int, peak: float | None, every: int = 1
    ) -> None:
        """Continue the log after the steps that are done.

        Args:
            folder: Folder of the training.
            stage: Name of the stage.
            steps: Number of steps of the stage, if known.
            done: Number of steps that are done.
            peak: Peak FLOP/s of all devices together, for MFU; None leaves MFU out.
            every: Steps per line of text; metrics.jsonl has every step.
        """
        self._every = every
        self._file, self._stage, self._steps, self._peak = folder / METRICS, stage, steps, peak
        self._begin = time.perf_counter()
        self._begun_at: float | None = None
        self._skipped_logged = False
        folder.mkdir(parents=True, exist_ok=True)
        self._written = {_key(record) for record in forget(self._file, stage, done)}
        self._board = _board(folder / "tensorboard" / stage, done)

    def step(self, step: Step) -> None:
        """Log a finished step, and a line of text if it is due."""
        values = {_KEYS.get(name, name): value for name, value in vars(step).items() if name != "skipped"}
        mfu = self._mfu(step)
        self._write("step", step.step, {**values, "mfu": mfu, "skipped": list(step.skipped)})
        numbers = {"loss": step.loss, "grad_norm": step.grad_norm, "fill": step.packing_efficiency, "mfu": mfu}
        numbers |= {f"rate/{name}": rate for name, rate in step.rates.items()}
        counts = {"samples": step.samples, "tokens": step.tokens, "patches": step.patches}
        numbers |= {f"{name}_per_second": count / step.seconds for name, count in counts.items()}
        self._scalars(step.step, numbers)
        if step.step % self._every == 0 or step.progress >= 1:
            log.info(self.line(step))

    def line(self, step: Step) -> str:
        """Return the line of text of a step."""
        steps = f"/{self._steps}" if self._steps else ""
        rates = " ".join(f"{name} {rate:.1e}" for name, rate in step.rates.items())
        mfu = self._mfu(step)
        parts = [
            f"{self._stage} {step.step}{steps}",
            f"loss {step.loss:.4f}",
            f"lr {rates}",
            f"{step.samples / step.seconds:,.1f} samples/s",
            f"{step.tokens / step.seconds:,.0f} tok/s",
            f"{step.patches / step.seconds:,.0f} patches/s",
            f"fill {step.packing_efficiency:.2f}",
            *([f"MFU {mfu:.1%}"] if mfu is not None else []),
            f"data {step.data_time / step.seconds:.1%}",
            f"ETA {self._eta(step.progress)}",
        ]
        return "  ".join(parts)

    def held_out(self, step: int, losses: Mapping[str, float]) -> None:
        """Log held-out losses by source, in nats per token."""
        log.info("  held out: %s", ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()))
        if self._write("held_out", step, {"losses": dict(losses)}):
            self._scalars(step, {f"held_out/{name}": loss for name, loss in losses.items()})

    def has_evaluation(self, step: int) -> bool:
        """Return whether an earlier process has logged the evaluation of a step."""
        return any(stage == self._stage and kind != "step" and at == step for stage, kind, at, _ in self._written)

    def skipped_held_out(self, lines: Sequence[str]) -> None:
        """Log bad held-out samples: their number and the first reason, once per stage."""
        if lines and not self._skipped_logged:
            log.warning("skipped %d held-out samples; the first: %s", len(lines), lines[0])
            self._skipped_logged = True

    def answers(self, step: int, answers: Sequence[tuple[str, str, str, bool]]) -> None:
        """Log generated answers: (name of the sample, the model's answer, the reference, whether the answer is cut)."""
        for name, answer, reference, cut in answers:
            log.info("  %s: %r; reference %r", name, _short(f"{answer}…" if cut else answer), _short(reference))
            values = {"sample": name, "answer": answer, "reference": reference, "cut": cut}
            if self._write("answer", step, values) and self._board:
                self._board.add_text(name, f"{answer}\n\n*{reference}*", step)

    def close(self) -> None:
        """Flush and close TensorBoard's files."""
        if self._board:
            self._board.close()

    def _mfu(self, step: Step) -> float | None:
        return step.flops / step.seconds / self._peak if self._peak else None

    def _eta(self, progress: float) -> str:
        now = time.perf_counter()
        if self._begun_at is None:  # leave out the first step of this process: it includes warm-up
            self._begun_at, self._begin = progress, now
        if progress <= self._begun_at:
            return "?" if progress < 1 else "0:00:00"
        left = round((now - self._begin) / (progress - self._begun_at) * (1 - progress))
        return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"

    def _write(self, kind: str, step: int, values: Mapping[str, Any]) -> bool:
        record = {"kind": kind, "stage": self._stage, "step": step, **values}
        if _key(record) in self._written:
            return False
        with open(self._file, "a") as file:
            file.write(json.dumps(record) + "\n")
        return True

    def _scalars(self, step: int, numbers: Mapping[str, float | None]) -> None:
        for name, value in numbers.items() if self._board else ():
            if value is not None:
                self._board.add_scalar(name, value, step)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return all records of a training's metrics.jsonl. A last line that a kill truncated is left out.

    Raises:
        UserError: The file cannot be read, or another line is damaged.
    """
    file = folder / METRICS
    with reading(file):
        lines = file.read_bytes().splitlines() if file.is_file() else []
    records = [_record(line) for line in lines]
    if records and records[-1] is None:
        records.pop()  # `forget` drops it
    if None in records:
        raise UserError(f"{file}: line {records.index(None) + 1} is damaged: copy the file again, or delete the line")
    return [record for record in records if record is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if the line is damaged."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and {"kind", "stage"} <= record.keys() and isinstance(record.get("step"), int)
    return record if whole else None


def ends(losses: Sequence[float], steps: int = 10) -> tuple[float, float]:
    """Return the mean loss of a stage's first and last `steps` steps, since single steps are noisy; NaN without any."""
    if not losses:
        return math.nan, math.nan
    first, last = losses[:steps], losses[-steps:]
    return sum(first) / len(first), sum(last) / len(last)


def forget(file: Path, stage: str, done: int) -> list[dict[str, Any]]:
    """Drop a stage's records after step `done` and a truncated last line. Return the remaining records."""
    if not file.is_file():
        return []
    kept = [r for r in read_metrics(file.parent) if r["stage"] != stage or r["step"] <= done]
    aside = file.with_suffix(".partial")
    aside.write_text("".join(json.dumps(record) + "\n" for record in kept))
    os.replace(aside, file)
    return kept


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return record["stage"], record["kind"], record["step"], record.get("sample")


def _board(folder: Path, done: int) -> Any:
    """Return TensorBoard's writer, or None if the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # purge_step hides later steps that an earlier attempt has written.
    return SummaryWriter(folder, purge_step=done + 1, flush_secs=_FLUSH)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 160 else flat[:160] + "…"
