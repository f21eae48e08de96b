"""Workers on this machine for small jobs: child processes start in a second, where Ray and its workers take many.

A child may die of a block, as of an image that makes a decoder crash. Such blocks are left to Ray, which isolates the
row. A child ends when this process does, however that ends.
"""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Self

import pyarrow as pa

from core.cluster import is_without_ray
from core.stages import Stage
from pipeline.execution.block_feed import BLOCK
from pipeline.execution.job_result import LocalResult
from pipeline.execution.local_child import COMPUTE, LOAD, PRELOAD
from pipeline.execution.receipts import Observe, ignore, raise_failure
from pipeline.execution.workers import Call
from pipeline.recipe_file import Resources

ROWS = 20_000
"""Up to this number of rows, a stage that loads a model or reads images is computed by local workers."""

_CHILD = """
import sys
sys.path[:] = sys.argv[3:]
from pipeline.execution.local_child import serve
serve(int(sys.argv[1]), int(sys.argv[2]))
"""

_EVER = 1e9
"""Seconds. Polars' handler of signals resumes a wait without a limit: Ctrl-C would take effect after the last block."""


class LocalWorkers:
    """Child processes that are started when the first job needs them, and kept for the next ones."""

    def __init__(self) -> None:
        self._children: list[_Child] = []

    def preload(self, modules: Sequence[str], count: int) -> None:
        """Let `count` processes import modules that later jobs need, while this process and other jobs go on."""
        for child in self._at_least(count):
            child.send(pickle.dumps((PRELOAD, modules)))

    def run(
        self,
        blocks: Sequence[pa.Table],
        make: Callable[[], Call],
        count: int,
        observe: Observe = ignore,
        threads: int = 1,
        at_once: int = 1,
        preloaded: bool = True,
    ) -> LocalResult:
        """Compute and store blocks.

        Args:
            blocks: The blocks.
            make: Returns, in a child, the function that stores a block and returns its receipt. If it cannot be
                pickled, such as a lambda, all blocks are left to Ray, which can.
            count: Number of processes, at most.
            observe: Called with each receipt, in any thread.
            threads: Threads of numerical libraries in each.
            at_once: Blocks that each computes at the same time.
            preloaded: Whether it begins after the modules of `preload` are imported.

        Raises:
            UserError: The function could not be loaded, or refused to continue.
            RayTaskError: It failed with a bug.
        """
        begin = time.perf_counter()
        waiting = deque(blocks)
        result = LocalResult(untried=waiting)
        try:
            loading = pickle.dumps((LOAD, (pickle.dumps(make), threads, at_once, preloaded)))
        except (pickle.PicklingError, AttributeError, TypeError):
            return result
        children = self._at_least(min(count, len(waiting)))
        numbers = itertools.count()

        def work(child: _Child) -> None:
            child.send(loading)
            computing: dict[int, pa.Table] = {}
            while True:
                while len(computing) < at_once and (block := _next(waiting)) is not None:
                    computing[number := next(numbers)] = block
                    child.send(pickle.dumps((COMPUTE, (number, block))))
                if not computing:
                    return
                receipt = child.receive()
                if receipt is None:
                    result.lost.extend(computing.values())
                    return
                raise_failure(receipt)
                del computing[receipt[BLOCK][0].as_py()]
                result.receipts.append(receipt)
                observe(receipt)

        with ThreadPoolExecutor(max(len(children), 1)) as pool:
            try:
                for done in as_completed([pool.submit(work, child) for child in children], timeout=_EVER):
                    done.result()
            except BaseException:
                waiting.clear()
                self.close(kill=True)
                raise
        return replace(result, seconds=time.perf_counter() - begin)

    def _at_least(self, count: int) -> list[_Child]:
        """Return `count` processes that run, and start those that lack."""
        self._children = [child for child in self._children if child.process.poll() is None]
        self._children += [_Child() for _ in range(count - len(self._children))]
        return self._children[:count]

    def close(self, kill: bool = False) -> None:
        """End the processes: at once, or after the block that each computes."""
        for child in self._children:
            child.close(kill)
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(kill=error is not None)


class _Child:
    def __init__(self) -> None:
        receiving, sending = os.pipe()  # not standard output, on which the start of Python may print
        command = [sys.executable, "-c", _CHILD, str(sending), str(os.getpid()), *sys.path]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what libraries print; errors come with the receipts
            pass_fds=[sending],
            start_new_session=True,  # without it, it would get a Ctrl-C too
        )
        os.close(sending)
        self._receipts = os.fdopen(receiving, "rb")

    def send(self, pickled: bytes) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has ended: the next `receive` returns None
            self.process.stdin.write(pickled)
            self.process.stdin.flush()

    def receive(self) -> pa.Table | None:
        """Return the next receipt; None if the process has ended."""
        try:
            return pickle.load(self._receipts)
        except (EOFError, pickle.UnpicklingError):  # the latter if it ended within a receipt
            self.process.kill()
            self.process.wait()
            return None

    def close(self, kill: bool) -> None:
        if kill:
            self.process.kill()
        with suppress(BrokenPipeError), self._receipts, self.process:  # closes the pipes and waits
            pass


def _next(waiting: deque[pa.Table]) -> pa.Table | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def is_for_local_workers(stage: Stage, resources: Resources, rows: int) -> bool:
    """Return whether local workers compute these rows: few, with nothing that Ray has to place or to guard.

    GPUs are Ray's, and so are classes that a child cannot import.
    """
    for_ray = (resources.actors, resources.num_cpus, resources.num_gpus)
    on_gpu = stage.gpus and shutil.which("nvidia-smi")
    return (
        rows <= ROWS
        and not on_gpu
        and for_ray == (None, None, None)
        and is_importable(type(stage))
        and is_without_ray()
    )


def is_importable(kind: type) -> bool:
    """Return whether another process can import a class: not if it was defined in a notebook or in a function."""
    return kind.__module__ != "__main__" and "<locals>" not in kind.__qualname__


def ready(call: Call) -> Callable[[], Call]:
    """Return a `make` for a function that needs no loading."""
    return partial(_same, call)


def _same(call: Call) -> Call:
    return call
