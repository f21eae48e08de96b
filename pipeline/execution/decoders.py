"""Threads that decode images, each image within a time limit.

A thread in a decoder's C code cannot be stopped. So an image that takes too long is abandoned: its row gets an error, a
new thread replaces the stuck one, and the stuck thread ends when the decoder returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

from pipeline.pools.images import Failure


@dataclass
class Task:
    """One image: the call that decodes it, its result, and when the call began (monotonic seconds; None: waiting)."""

    call: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    begin: float | None = None


class Decoders:
    """A pool of decoding threads, with one extra thread for each that is stuck in an abandoned image."""

    def __init__(self, threads: int, seconds: float) -> None:
        """Start the threads; `seconds` is the time limit for one image."""
        self._seconds = seconds
        self._threads = threads
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        for _ in range(threads):
            self._start()

    def close(self) -> None:
        """End the threads when they have run what is queued. Without it they last as long as the process."""
        for _ in range(self._threads):
            self._tasks.put(None)

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Task:
        """Queue a call, which runs in the next free thread."""
        task = Task(partial(call, *arguments))
        self._tasks.put(task)
        return task

    def result(self, task: Task) -> Any:
        """Return or raise the outcome of the call; return a Failure if it took too long."""
        while not task.future.done():
            begin = time.monotonic() if task.begin is None else task.begin
            try:
                task.future.exception(timeout=max(0.0, begin + self._seconds - time.monotonic()))
            except TimeoutError:
                if task.begin is not None and time.monotonic() - task.begin >= self._seconds:
                    self._abandon(task)
        return task.future.result()

    def _abandon(self, task: Task) -> None:
        try:
            task.future.set_result(Failure(f"too slow: not decoded within {self._seconds:g} s", retry=True))
        except InvalidStateError:  # the call finished at the last moment
            return
        self._start()

    def _start(self) -> None:
        # Daemon threads: a process that ends does not wait for stuck ones.
        threading.Thread(target=self._work, name="decode", daemon=True).start()

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            if task is None:
                return
            task.begin = time.monotonic()
            try:
                _run(task)
            except InvalidStateError:  # abandoned: another thread has replaced this one
                return
            del task  # its call holds the model


def _run(task: Task) -> None:
    try:
        result = task.call()
    except Exception as error:  # not handled here: `result` raises it
        task.future.set_exception(error)
    else:
        task.future.set_result(result)
