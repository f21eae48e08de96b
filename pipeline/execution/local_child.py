"""The other end of `LocalWorkers`: a child process that loads stages and computes the blocks that it gets."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from threading import Lock, Thread

import pyarrow as pa

from pipeline.execution.block_feed import BLOCK
from pipeline.execution.receipts import reported
from pipeline.execution.workers import Loaded

PRELOAD, LOAD, COMPUTE = "preload", "load", "compute"
"""The kinds of messages: modules to import; a pickled function, and how it is called; a block and its number."""


def serve(receipts: int, parent: int) -> None:
    """Compute what comes by standard input until it ends, and write receipts to a file descriptor.

    Args:
        receipts: The file descriptor.
        parent: The process that started this one. It may have ended since.
    """
    source, output = os.fdopen(os.dup(0), "rb"), os.fdopen(receipts, "wb")
    os.set_inheritable(receipts, False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a program that a stage starts must not read the blocks
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    lock, pool = Lock(), ThreadPoolExecutor(1)
    loaded: Loaded | None = None
    preloading: Thread | None = None

    def answer(number: int, block: pa.Table) -> None:
        assert loaded
        receipt = reported(block.append_column(BLOCK, pa.repeat(number, block.num_rows)), loaded)
        with lock:
            pickle.dump(receipt, output)
            output.flush()

    while True:
        try:
            kind, value = pickle.load(source)
        except EOFError:
            if preloading and preloading.is_alive():
                os._exit(0)  # who waits for the end of this process needs the modules no more
            return
        if kind == PRELOAD:
            preloading = Thread(target=_import_all, args=(value,), daemon=True)
            preloading.start()
        elif kind == LOAD:
            make, threads, at_once, preloaded = value
            pool.shutdown()
            loaded = None  # frees the last model
            if preloaded:
                if preloading:
                    preloading.join()  # two threads must not import the same modules
                _set_threads(threads)
            loaded, pool = Loaded(pickle.loads(make)), ThreadPoolExecutor(at_once)
        else:
            pool.submit(answer, *value).add_done_callback(_end_if_failed)


def _import_all(modules: Sequence[str]) -> None:
    for module in modules:
        import_module(module)  # one that is missing ends this thread: the job that needs it says so


def _end_if_failed(answered: Future[None]) -> None:
    """End the process if a receipt could not be sent: who waits for it must not wait for ever."""
    if answered.exception():
        os._exit(1)


def _end_with(parent: int) -> None:
    """End this process with its parent, and not after its block, which may take hours."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _set_threads(threads: int) -> None:
    """Set the threads of numerical libraries, as Ray does for its workers: unless the environment sets them."""
    if _THREADS_ARE_SET:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


_THREADS_ARE_SET = "OMP_NUM_THREADS" in os.environ
