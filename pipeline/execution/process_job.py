"""Compute a small job in child processes: they start in a second, where Ray and its workers take many.

A child may die of a block, as of an image that makes a decoder crash. Such blocks are left to Ray, which isolates the
row. A child reads blocks from its standard input, so it ends when this process does, however that ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa

from pipeline.execution.receipts import BLOCK, raise_failure, reported

Call = Callable[[pa.Table], pa.Table]

_CHILD = """
import sys
sys.path[:] = sys.argv[1:]
from pipeline.execution.process_job import serve
serve()
"""


def is_without_ray() -> bool:
    """Return whether there is neither a cluster to join nor a Ray in this process: one would have to be started."""
    ray = sys.modules.get("ray")
    return "RAY_ADDRESS" not in os.environ and not (ray and ray.is_initialized())


def run_in_processes(blocks: Iterable[pa.Table], call: Call) -> tuple[list[pa.Table], list[pa.Table]]:
    """Call a function for each block, in as many processes as this one has CPUs.

    Args:
        blocks: The blocks.
        call: Stores a block and returns its receipt; it must be picklable.

    Returns:
        The receipts, and the blocks that ended their process.

    Raises:
        UserError: `call` refused to continue.
        RayTaskError: `call` failed with a bug.
    """
    waiting, receipts, left = deque(blocks), list[pa.Table](), list[pa.Table]()

    def work() -> None:
        with _child(call) as compute:
            while waiting:
                block = waiting.popleft()
                try:
                    receipts.append(compute(block))
                except (EOFError, BrokenPipeError):  # the process has ended
                    left.append(block)
                    break
                raise_failure(receipts[-1])

    count = min(len(os.sched_getaffinity(0)), len(waiting))
    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(work) for _ in range(count)]:
            done.result()
    return receipts, [*left, *waiting]


@contextmanager
def _child(call: Call) -> Iterator[Call]:
    """Start a process; yield a function that computes one block in it."""
    command = [sys.executable, "-c", _CHILD, *sys.path]
    # In a session of its own it does not get a Ctrl-C, and ends with the end of its input.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin
        assert process.stdout
        to_child, from_child = process.stdin, process.stdout

        def compute(block: pa.Table) -> pa.Table:
            _send(to_child, block)
            return pickle.load(from_child)

        try:
            _send(to_child, call)
        except BrokenPipeError:
            pass  # the first block shows it
        try:
            yield compute
        except BaseException:
            process.kill()
            raise


def _send(pipe: BinaryIO, value: object) -> None:
    pickle.dump(value, pipe)
    pipe.flush()


def serve() -> None:
    """Compute blocks from standard input until it ends, and write their receipts to standard output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the receipts
    call: Call = pickle.load(sys.stdin.buffer)
    while True:
        try:
            block = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        _send(output, reported(block.append_column(BLOCK, pa.repeat(0, block.num_rows)), call))
