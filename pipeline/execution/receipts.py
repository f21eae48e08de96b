"""Receipts: what a task returns to the driver instead of rows, also if an exception ended it.

An exception reaches the driver as a value: Ray Data is configured to skip blocks whose worker died, and would skip a
block with an exception in the same way.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pyarrow as pa

from core.errors import UserError, is_bug
from pipeline.execution.block_feed import BLOCK, rows_of
from pipeline.execution.reasons import REASONS, Reason

Observe = Callable[[pa.Table], None]
"""A function that the driver calls with each receipt, in any thread."""

_WORKER = uuid.uuid4().hex


def receipt(
    rows: int,
    errors: int,
    begin: float | None = None,
    busy: float | None = None,
    bytes_read: int = 0,
    tokens: int = 0,
    reasons: Sequence[Reason] = (),
) -> pa.Table:
    """Return the receipt of a task. It is a few hundred bytes: the driver holds those of all parts.

    Args:
        rows: Rows stored.
        errors: Stored rows that failed.
        begin: Start of the work on them, in seconds by the worker's clock; None: now.
        busy: Seconds in which the model ran; None if no model runs, or none that waits for images.
        bytes_read: Bytes of images that were read or downloaded.
        tokens: Tokens of the captions.
        reasons: Why rows failed, from `count_reasons`.

    Returns:
        One row: `rows`, `errors`, the `worker`, `begin` and `end` by its clock, the other arguments, and `taken`, the
        rows of the block: as many as were stored, unless it is set (see `with_taken`).
    """
    end = time.time()
    columns = {
        "rows": [rows],
        "errors": [errors],
        "worker": [_WORKER],
        "begin": [end if begin is None else begin],
        "end": [end],
        "busy": pa.array([busy], pa.float64()),
        "bytes_read": [bytes_read],
        "tokens": [tokens],
        "reasons": pa.array([[asdict(reason) for reason in reasons]], REASONS),
        "taken": [rows],
    }
    return pa.table(columns)


def reported(block: pa.Table, call: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Return the receipt of `call` for a block or its ticket, with the number of the block.

    `refused` is the message of an error that is not a bug; `broken` is the traceback of a bug.
    """
    refused = broken = None
    taken = 0
    try:
        rows = rows_of(block)
        taken = rows.num_rows
        done = call(rows)
    except Exception as error:  # not handled here: `raise_failure` raises it in the driver
        done = receipt(0, 0)
        if is_bug(error):
            broken = traceback.format_exc()
        else:
            refused = " ".join(str(error).split())
    for name, value in (("refused", refused), ("broken", broken)):
        done = done.append_column(name, pa.array([value], pa.string()))
    return with_taken(done, taken).append_column(BLOCK, block[BLOCK].slice(0, 1))


def with_taken(receipt: pa.Table, taken: int) -> pa.Table:
    """Return the receipt of a block with so many rows, which are files in the index job."""
    return receipt.set_column(receipt.column_names.index("taken"), "taken", pa.array([taken], pa.int64()))


def called(block: pa.Table, call: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Return the receipt of `call` for a block that is computed in the driver.

    Raises:
        UserError: The stage or the system refused to continue. A bug is raised as it is.
    """
    try:
        return call(block)
    except Exception as error:
        if is_bug(error) or isinstance(error, UserError):
            raise
        raise UserError(" ".join(str(error).split())) from error


def ignore(receipt: pa.Table) -> None:
    """Observe nothing."""


def raise_failure(receipts: pa.Table) -> None:
    """Raise the error that ended the work on a block, if there is one.

    Raises:
        UserError: The stage or the system refused to continue; the message is the original one.
        RayTaskError: The work failed with a bug; the text is the traceback.
    """
    for refused, broken in zip(receipts["refused"].to_pylist(), receipts["broken"].to_pylist(), strict=True):
        if refused is not None:
            raise UserError(refused)
        if broken is not None:
            from ray.exceptions import RayTaskError

            raise RayTaskError("block", broken, RuntimeError(broken.strip().rpartition("\n")[2]))
