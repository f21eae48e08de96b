"""What the children of `test_local_workers.py` compute. They import this module, so it imports little."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

from pipeline.execution.receipts import receipt


def store(block: pa.Table) -> pa.Table:
    """Fail in the way that the block's numbers say; 4 is an error of its row."""
    numbers = block["number"].to_pylist()
    if 3 in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    if 5 in numbers:
        raise OSError(errno.ENOSPC, "No space left on device")
    if 6 in numbers:
        raise ZeroDivisionError("a bug")
    print("a line of a library")
    return receipt(len(numbers), errors=numbers.count(4))


def die_within_the_receipt(block: pa.Table) -> pa.Table:
    """Die with a part of the receipt written."""
    os.write(int(sys.argv[1]), pickle.dumps(receipt(1, 0))[:100])
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def meet(block: pa.Table) -> pa.Table:
    """Wait for the other block; an error if it is not computed at the same time."""
    own, other = (Path(block[name][0].as_py()) for name in ("own", "other"))
    own.touch()
    deadline = time.monotonic() + 20
    while not other.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return receipt(1, errors=int(not other.exists()))


def wait(block: pa.Table) -> pa.Table:
    """Write the process id to a file, then sleep."""
    Path(block["file"][0].as_py()).write_text(str(os.getpid()))
    time.sleep(block["seconds"][0].as_py())
    return receipt(1, 0)


def cat(block: pa.Table) -> pa.Table:
    """Count the bytes that a program reads from standard input."""
    return receipt(len(subprocess.run(["cat"], capture_output=True, check=True).stdout), 0)


class KillsFirst:
    """The first process that unpickles it dies; in the next ones its call fails."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __setstate__(self, state: dict[str, Path]) -> None:
        try:
            state["_file"].touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, block: pa.Table) -> pa.Table:
        time.sleep(2)
        raise OSError(errno.ENOSPC, "No space left on device")


def touch(block: pa.Table) -> pa.Table:
    """Make a file."""
    Path(block["file"][0].as_py()).touch()
    return receipt(1, 0)


def has_slow(block: pa.Table) -> pa.Table:
    """An error if the module `slow` is not imported."""
    return receipt(1, errors=int(not hasattr(sys.modules.get("slow"), "end_of_import")))
