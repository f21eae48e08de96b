"""Memory that two processes share."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from model.training.data.processes import receive, send
from model.training.data.shared_memory import Reader, Writer, create


@pytest.fixture
def shared() -> Iterator[int]:
    descriptor = create(1000)
    if descriptor is None:
        pytest.skip("only Linux has it")
    yield descriptor
    os.close(descriptor)


def _put(writer: Writer, value: int, length: int) -> int | None:
    return writer.put(memoryview(bytes([value]) * length))


def test_bytes_are_read_in_place(shared: int) -> None:
    writer, reader = Writer(shared), Reader(shared)
    starts = [_put(writer, value, 100) for value in (1, 2, 3)]
    assert [bytes(reader.block(start, 100)) for start in starts if start is not None] == [
        bytes([value]) * 100 for value in (1, 2, 3)
    ]


def test_place_is_in_use_until_the_last_tensor_has_gone(shared: int) -> None:
    writer, reader = Writer(shared), Reader(shared)
    start = _put(writer, 7, 100)
    assert start is not None
    tensor = torch.from_numpy(np.frombuffer(reader.block(start, 100), np.uint8)).view(10, 10)
    part = tensor[3:5, 2:].T
    del tensor
    assert reader.unused() == []
    assert part.eq(7).all()
    del part
    assert [reader.unused(), reader.unused()] == [[start], []]


def test_free_places_are_used_again_if_long_enough(shared: int) -> None:
    writer = Writer(shared)
    first, second, third = (_put(writer, value, 256) for value in (1, 2, 3))
    assert (first, second, third) == (0, 256, 512)
    writer.free([256])
    assert _put(writer, 4, 257) is None, "232 bytes are left at the end, 256 in the middle"
    assert _put(writer, 5, 100) == 256
    assert _put(writer, 6, 100) == 384, "at the next line of the cache"
    assert _put(writer, 7, 1000 - 768) == 768


def test_memory_leaves_no_file_and_takes_pages_only_when_used(shared: int) -> None:
    writer = Writer(shared)
    before = os.fstat(shared).st_blocks
    _put(writer, 1, 100)
    assert (before, os.fstat(shared).st_blocks * 512, os.fstat(shared).st_nlink) == (0, os.sysconf("SC_PAGE_SIZE"), 0)


@pytest.mark.parametrize("size", [None, 50_000, 1 << 20])
@pytest.mark.parametrize("shape", [(), (0, 588), (3, 0), (40, 588)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32])
def test_tensors_arrive_as_they_were_sent(size: int | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Without shared memory, with too little of it, and with enough."""
    value = torch.from_numpy(np.random.default_rng(0).integers(0, 2, shape)).to(dtype)
    ours, theirs = socket.socketpair()
    shared = None if size is None else create(size)
    writer, reader = (None, None) if shared is None else (Writer(shared), Reader(shared))
    sender = threading.Thread(target=send, args=(ours, {"one": [value, "text"], "two": value}, writer))
    sender.start()
    received = receive(theirs, reader)
    sender.join()
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)
    theirs.close()
    for tensor in (received["one"][0], received["two"]):
        assert tensor.dtype == dtype
        assert torch.equal(tensor, value)
    assert not received["two"].zero_().any(), "it can be written"
