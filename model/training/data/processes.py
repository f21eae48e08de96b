"""Prepare samples in processes of their own, so that decoding does not hold the interpreter lock of the training.

The trainer reads a sample's text and encoded images; a process decodes, resizes and tokenises it. They talk over a
socket. Tensors travel beside the pickle, so that Python does not copy them: through shared memory if it has room, else
through the socket, which has no limit.

A process ends when the trainer closes the socket, also by its death. It ignores SIGINT and SIGTERM, which terminals and
clusters send to all processes: the trainer still needs it for the last step before its checkpoint.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping
from io import BytesIO
from queue import Queue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.cpus import count_cpus
from core.errors import UserError
from model.training.data import shared_memory
from model.training.data.prepare import Prepared, Preparer
from model.training.data.samples import Sample

_MOST = 16  # processes by default
_SPARE = 2  # cores that are left for the trainer by default: one launches kernels, one packs rows
_LENGTH = struct.Struct("<Q")
_LARGE = 1 << 12  # bytes of a tensor from which on it is sent by itself
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",  # nothing here needs a GPU
    "TOKENIZERS_PARALLELISM": "false",  # threads for the few texts of a sample cost more than the texts
    # glibc: keep the memory of images for the next ones. To get it anew costs a tenth of the time of a decoded JPEG.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


def default_count(environment: Mapping[str, str] = os.environ) -> int:
    """Return the default number of processes of this trainer: the cores that it may use less two, at most 16.

    Trainers on one machine share its cores. 0 means that threads of the trainer prepare the samples.
    """
    trainers = int(environment.get("LOCAL_WORLD_SIZE", 1))  # Ray Train and torchrun set it
    return max(min(count_cpus() // trainers - _SPARE, _MOST), 0)


class Processes:
    """A fixed number of processes that prepare samples. Threads share them."""

    def __init__(self, count: int, preparer: Preparer) -> None:
        """Start `count` processes. Each gets a copy of `preparer` with its first sample."""
        self._all = [_Process(preparer) for _ in range(count)]
        self._idle: Queue[_Process] = Queue()  # it serves waiting threads in turn, so that no early sample waits long
        for process in self._all:
            self._idle.put(process)

    def prepare(self, sample: Sample, index: int) -> list[Prepared]:
        """Prepare a sample in the next idle process, as `Preparer` does.

        Raises:
            UserError: A process has died, on this sample or on an earlier one.
        """
        process = self._idle.get()
        try:
            return process.prepare(sample, index)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes at once."""
        for process in self._all:
            process.kill()


class _Process:
    """The trainer's end of one process."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer: Preparer | None = preparer  # until it is sent
        self._death: UserError | None = None
        self._socket, theirs = socket.socketpair()
        shared = shared_memory.create()
        self._memory = None if shared is None else shared_memory.Reader(shared)
        descriptors = [theirs.fileno()] if shared is None else [theirs.fileno(), shared]
        # No `multiprocessing`: it would run the user's main script again in each process.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve(*{descriptors})"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # the process inherits the mask
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                env={**os.environ, **_ENVIRONMENT},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
            if shared is not None:
                os.close(shared)

    def prepare(self, sample: Sample, index: int) -> list[Prepared]:
        if self._death:
            raise self._death
        try:
            if self._preparer is not None:
                send(self._socket, self._preparer)
                self._preparer = None
            send(self._socket, (sample, index, self._memory.unused() if self._memory else []))
            result: list[Prepared] | Exception = receive(self._socket, self._memory)
        except (EOFError, ConnectionError) as error:
            self._death = UserError(
                f"{sample.name}: the process that prepared it has died ({self._cause()}): lower `workers` if memory "
                "ran out, else take the sample out; then run the same command again"
            )
            raise self._death from error
        if isinstance(result, Exception):
            raise result
        return result

    def _cause(self) -> str:
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()


def serve(descriptor: int, shared: int | None = None) -> None:
    """Prepare samples for the trainer at the other end of a socket, until it closes the socket.

    Args:
        descriptor: That of the socket.
        shared: That of the memory for large tensors, which the trainer reads in place.
    """
    torch.set_num_threads(1)
    connection = socket.socket(fileno=descriptor)
    memory = None if shared is None else shared_memory.Writer(shared)
    try:
        preparer: Preparer = receive(connection)
        while True:
            sample, index, unused = receive(connection)
            if memory is not None:
                memory.free(unused)
            try:
                result: list[Prepared] | Exception = preparer(sample, index)
            except Exception as error:  # it is raised in the trainer
                result = _portable(error)
            send(connection, result, memory)
    except (EOFError, ConnectionError):
        return


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: itself with its traceback as a note, or one with the traceback as its text."""
    text = traceback.format_exc()
    error.add_note(text)
    try:
        return error if isinstance(pickle.loads(pickle.dumps(error)), type(error)) else RuntimeError(text)
    except Exception:  # classes of libraries may raise anything here
        return RuntimeError(text)


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, whose memory `buffer_callback` gets."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


def send(connection: socket.socket, value: Any, memory: shared_memory.Writer | None = None) -> None:
    """Send a value: the length of a head, the head, and the bytes of each large tensor that are not in shared memory.

    The head holds the pickled value and, for each large tensor, its length and its place in shared memory, if any.
    """
    large: list[pickle.PickleBuffer] = []

    def pickled_with_the_rest(buffer: pickle.PickleBuffer) -> bool:
        if small := buffer.raw().nbytes < _LARGE:
            return small
        large.append(buffer)
        return False

    rest = BytesIO()
    _Pickler(rest, protocol=5, buffer_callback=pickled_with_the_rest).dump(value)
    blocks = [buffer.raw() for buffer in large]
    places = [memory.put(block) if memory else None for block in blocks]
    lengths = [block.nbytes for block in blocks]
    head = pickle.dumps((rest.getvalue(), list(zip(lengths, places, strict=True))))
    connection.sendall(_LENGTH.pack(len(head)) + head)
    for block, place in zip(blocks, places, strict=True):
        if place is None:
            connection.sendall(block)


def receive(connection: socket.socket, memory: shared_memory.Reader | None = None) -> Any:
    """Receive a value that `send` has sent, with the other end of its memory.

    Raises:
        EOFError: The other end is closed.
    """
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    rest, large = pickle.loads(_read(connection, length))

    def block(length: int, place: int | None) -> memoryview:
        return _read(connection, length) if memory is None or place is None else memory.block(place, length)

    return pickle.loads(rest, buffers=[block(*one) for one in large])


def _read(connection: socket.socket, length: int) -> memoryview:
    """Read exactly so many bytes. One call reads most of them, so a thread waits for the interpreter lock only once."""
    block = np.empty(length, np.uint8).data
    done = 0
    while done < length:
        count = connection.recv_into(block[done:], 0, socket.MSG_WAITALL)
        if not count:
            raise EOFError
        done += count
    return block
