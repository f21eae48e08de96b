"""The sum of receipts: counts, times of workers, reasons."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.execution.reasons import OTHER, count_reasons
from pipeline.execution.receipts import BLOCK, receipt, reported
from pipeline.execution.tally import Tally


def _of(worker: str, begin: float, end: float, busy: float | None) -> pa.Table:
    done = receipt(10, 0, busy=busy)
    for name, value in (("worker", worker), ("begin", begin), ("end", end)):
        done = done.set_column(done.column_names.index(name), name, pa.array([value]))
    return done


def test_idle_share_counts_the_workers_with_a_model() -> None:
    parts = [_of("a", 0, 4, 3), _of("a", 5, 10, 4), _of("b", 0, 10, 9), _of("driver", 0, 1000, None)]
    tally = Tally.of(pa.concat_tables(parts))
    assert tally.idle == pytest.approx(1 - 16 / 20)
    assert tally.working == 1000


def test_idle_share_without_a_model_is_unknown() -> None:
    assert Tally.of(_of("a", 0, 4, None)).idle is None


def test_files_of_a_block_are_taken_and_its_rows_stored() -> None:
    block = pa.table({"path": ["a.tar", "b.tar"], BLOCK: [0, 0]})
    tally = Tally.of(reported(block, lambda files: receipt(500, 0, bytes_read=7, tokens=3)))
    assert (tally.taken, tally.rows, tally.bytes_read, tally.tokens) == (2, 500, 7, 3)


def test_kinds_of_errors_beyond_the_eighth_are_other() -> None:
    errors = [f"kind {number}: text" for number in range(10)] + ["kind 9: another"]
    tally = Tally()
    for _ in range(2):
        tally.add(receipt(100, len(errors), reasons=count_reasons(errors)))
    assert (tally.errors, tally.reasons.total(), tally.reasons[OTHER]) == (22, 22, 4)
    assert tally.commonest() in ("kind 9: text", OTHER)


def test_receipt_of_many_long_errors_is_small() -> None:
    errors = [f"{number}{'x' * 10_000}: {'y' * 10_000}" for number in range(1000)]
    assert receipt(1000, 1000, reasons=count_reasons(errors)).nbytes < 2500
