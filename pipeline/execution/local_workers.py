"""Workers on this machine for small jobs: child processes start in a second, where Ray and its workers take many.

A child may die of a block, as of an image that makes a decoder crash. Such blocks are left to Ray, which isolates the
row. A child reads blocks from its standard input, so it ends when this process does, however that ends.
"""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self

import pyarrow as pa

from core.stages import Stage
from pipeline.execution.job_result import LocalResult
from pipeline.execution.receipts import BLOCK, raise_failure, reported
from pipeline.execution.workers import Call, Loaded
from pipeline.recipe_file import Resources

ROWS = 2_000
"""Up to this number of rows, a stage that loads a model or reads images is computed by local workers."""

_CHILD = """
import sys
sys.path[:] = sys.argv[1:]
from pipeline.execution.local_workers import serve
serve()
"""
_LOAD, _COMPUTE = "load", "compute"


class LocalWorkers:
    """Child processes that are started when the first job needs them, and kept for the next ones."""

    def __init__(self) -> None:
        self._children: list[_Child] = []

    def run(
        self,
        name: str,
        blocks: Iterable[pa.Table],
        make: Callable[[], Call],
        count: int,
        threads: int = 1,
        at_once: int = 1,
    ) -> LocalResult:
        """Compute and store blocks.

        Args:
            name: Name of the job, for its progress bar on a terminal.
            blocks: The blocks.
            make: Returns, in a child, the function that stores a block and returns its receipt. It must be picklable.
            count: Number of processes, at most.
            threads: Threads of numerical libraries in each.
            at_once: Blocks that each computes at the same time.

        Raises:
            UserError: The function could not be loaded, or refused to continue.
            RayTaskError: It failed with a bug.
        """
        begin = time.perf_counter()
        waiting = deque(blocks)
        result = LocalResult(untried=waiting)
        count = min(count, len(waiting))
        self._children += [_Child() for _ in range(count - len(self._children))]

        numbers = itertools.count()

        def work(child: _Child) -> None:
            child.send(_LOAD, (make, threads, at_once))
            computing: dict[int, pa.Table] = {}
            while True:
                while len(computing) < at_once and (block := _next(waiting)) is not None:
                    computing[number := next(numbers)] = block
                    child.send(_COMPUTE, (number, block))
                if not computing:
                    return
                receipt = child.receive()
                if receipt is None:
                    result.lost.extend(computing.values())
                    return
                raise_failure(receipt)
                block = computing.pop(receipt[BLOCK][0].as_py())
                result.receipts.append(receipt)
                advance(block.num_rows)

        rows = sum(block.num_rows for block in waiting)
        with _progress(name, rows) as advance, ThreadPoolExecutor(max(count, 1)) as pool:
            try:
                for done in [pool.submit(work, child) for child in self._children[:count]]:
                    done.result()
            except BaseException:
                waiting.clear()
                self.close(kill=True)
                raise
        self._children = [child for child in self._children if child.process.poll() is None]
        return replace(result, seconds=time.perf_counter() - begin)

    def close(self, kill: bool = False) -> None:
        """End the processes: at once, or after the block that each computes."""
        for child in self._children:
            child.close(kill)
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Child:
    def __init__(self) -> None:
        command = [sys.executable, "-c", _CHILD, *sys.path]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libraries print; errors come with the receipts
            start_new_session=True,  # without it, it would get a Ctrl-C too
        )

    def send(self, kind: str, value: object) -> None:
        assert self.process.stdin
        try:
            pickle.dump((kind, value), self.process.stdin)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the next `receive` returns None

    def receive(self) -> pa.Table | None:
        """Return the next receipt; None if the process has ended."""
        assert self.process.stdout
        try:
            return pickle.load(self.process.stdout)
        except EOFError:
            self.process.wait()
            return None

    def close(self, kill: bool) -> None:
        if kill:
            self.process.kill()
        with self.process:  # closes its pipes and waits for it
            pass


def _next(waiting: deque[pa.Table]) -> pa.Table | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


@contextmanager
def _progress(name: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar if stderr is a terminal; yield a function that gets the number of rows that are done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield partial(bar.advance, bar.add_task(name, total=rows))


def serve() -> None:
    """Compute what comes by standard input until it ends, and write receipts to standard output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the receipts
    lock, pool = threading.Lock(), ThreadPoolExecutor(1)
    loaded: Loaded | None = None

    def answer(number: int, block: pa.Table) -> None:
        assert loaded
        receipt = reported(block.append_column(BLOCK, pa.repeat(number, block.num_rows)), loaded)
        with lock:
            pickle.dump(receipt, output)
            output.flush()

    while True:
        try:
            kind, value = pickle.load(sys.stdin.buffer)
        except EOFError:  # there is nothing more to do, or nobody to do it for
            os._exit(0)
        if kind == _LOAD:
            make, threads, at_once = value
            pool.shutdown()
            loaded = None  # frees the last model
            _set_threads(threads)
            loaded, pool = Loaded(make), ThreadPoolExecutor(at_once)
        else:
            pool.submit(answer, *value).add_done_callback(_end_if_failed)


def _end_if_failed(answered: Future[None]) -> None:
    """End the process if a receipt could not be sent: who waits for it must not wait for ever."""
    if answered.exception():
        os._exit(1)


def _set_threads(threads: int) -> None:
    """Set the threads of numerical libraries, as Ray does for its workers: unless the environment sets them."""
    if _THREADS_ARE_SET:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


_THREADS_ARE_SET = "OMP_NUM_THREADS" in os.environ


def is_without_ray() -> bool:
    """Return whether there is neither a cluster to join nor a Ray in this process: one would have to be started."""
    ray: Any = sys.modules.get("ray")
    return "RAY_ADDRESS" not in os.environ and not (ray and ray.is_initialized())


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
