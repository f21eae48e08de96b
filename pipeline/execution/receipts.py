"""What a task of a job hands on instead of rows: a receipt, or what ended it.

An exception comes to the driver as a value, too: Ray Data is told to pass over blocks whose worker died, and would pass
over an exception in the same way.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable

import pyarrow as pa

from core.errors import UserError, is_bug

BLOCK = "_block"
"""The column of a block, and of its receipt, that holds the block's number in the job."""

_WORKER = uuid.uuid4().hex


def receipt(rows: int, errors: int, begin: float | None = None, busy: float | None = None) -> pa.Table:
    """What a task hands on.

    Args:
        rows: Rows stored.
        errors: Those of them that failed.
        begin: When the work on them began, by the worker's clock, seconds.
        busy: Seconds in which the model ran, where that is told apart from waiting for images.

    Returns:
        One row: `rows`, `errors`, the `worker`, `begin` and `end` by its clock, and `busy`.
    """
    end = time.time()
    columns = {
        "rows": [rows],
        "errors": [errors],
        "worker": [_WORKER],
        "begin": [end if begin is None else begin],
        "end": [end],
        "busy": pa.array([busy], pa.float64()),
    }
    return pa.table(columns)


def reported(block: pa.Table, call: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """The receipt of `call` for a block, with the block's number and the columns `refused` and `broken`: an error."""
    refused = broken = None
    try:
        done = call(block.drop_columns([BLOCK]))
    except Exception as error:  # not handled here: `raise_failure` raises it in the driver
        done = receipt(0, 0)
        if is_bug(error):
            broken = traceback.format_exc()
        else:
            refused = " ".join(str(error).split())
    for name, value in (("refused", refused), ("broken", broken)):
        done = done.append_column(name, pa.array([value], pa.string()))
    return done.append_column(BLOCK, block[BLOCK].slice(0, 1))


def raise_failure(receipts: pa.Table) -> None:
    """Raise what ended the work on a block.

    Raises:
        UserError: The stage or the system refuses to go on, in its own words.
        RayTaskError: It is broken; the text is the traceback.
    """
    from ray.exceptions import RayTaskError

    for refused, broken in zip(receipts["refused"].to_pylist(), receipts["broken"].to_pylist(), strict=True):
        if refused is not None:
            raise UserError(refused)
        if broken is not None:
            raise RayTaskError("block", broken, RuntimeError(broken.strip().rpartition("\n")[2]))
