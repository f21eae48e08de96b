"""Reasons of one kind are counted together."""

from __future__ import annotations

from model.training.data.measurement import Measured
from model.training.skip_reasons import skip_reasons


def test_reasons_that_differ_in_paths_and_numbers_are_one() -> None:
    errors = [f"qa: qa.jsonl line {n}: /data/{n}.png: no such file" for n in range(3)]
    skipped = [Measured(error=error) for error in [*errors, "qa: qa.jsonl line 9: no\n answer"]]
    first, second = skip_reasons("qa", [*skipped, Measured(error="")])
    assert (first.samples, first.reason) == (3, "qa.jsonl line …: …: no such file")
    assert first.example == "qa: qa.jsonl line 0: /data/0.png: no such file"
    assert (second.samples, second.reason) == (1, "qa.jsonl line …: no answer")


def test_long_message_is_grouped_by_its_beginning() -> None:
    """A pattern takes the square of the length: of 200,000 characters it would take an hour."""
    (reason,) = skip_reasons("qa", [Measured(error="qa: broken " + "x" * 200_000)])
    assert reason.reason.startswith("broken xxx")
    assert len(reason.reason) <= 300
    assert len(reason.example) <= 2001
