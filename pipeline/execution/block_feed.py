"""Give blocks to Ray's workers when they ask for them.

Ray Data takes all blocks of a job before the first one is computed. So it gets tickets: tables with the number of a
block. A worker with a ticket asks for the block, through an actor on the driver's machine, and the driver cuts it then.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from core.errors import UserError

BLOCK = "_block"
"""The column of a block, of its ticket and of its receipt that holds the block's number in the job."""

_FEED = "_feed"
"""The column of a ticket with the name of the actor."""

_JOB = "_job"
"""The column of a ticket with the job that the actor knows the block by."""

_WAITING = 100_000
"""Number of workers that may wait for a block at the same time."""


@dataclass
class _Requests:
    """The requests for blocks of one job."""

    wanted: asyncio.Queue[tuple[str, int] | None] = field(default_factory=asyncio.Queue)
    answers: dict[str, asyncio.Future[pa.Table | None]] = field(default_factory=dict)


class _Exchange:
    """The actor: workers ask it for blocks, and the driver asks it which ones they want."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Requests] = {}

    async def open(self, job: str) -> None:
        self._jobs[job] = _Requests()

    async def block(self, job: str, number: int) -> pa.Table | None:
        """Return a block, when the driver gives it; None if the job has ended."""
        if (requests := self._jobs.get(job)) is None:
            return None
        request = uuid.uuid4().hex
        answer = requests.answers[request] = asyncio.get_running_loop().create_future()
        await requests.wanted.put((request, number))
        return await answer

    async def next_request(self, job: str) -> tuple[str, int] | None:
        """Return the next request, when there is one; None if the job has ended."""
        requests = self._jobs.get(job)
        return await requests.wanted.get() if requests else None

    async def answer(self, job: str, request: str, block: pa.Table) -> None:
        requests = self._jobs.get(job)
        if requests and not (waiting := requests.answers.pop(request)).done():
            waiting.set_result(block)

    async def close(self, job: str) -> None:
        """End a job: nobody waits any more."""
        if requests := self._jobs.pop(job, None):
            for answer in requests.answers.values():
                if not answer.done():  # Ray cancels the call of a worker that died
                    answer.set_result(None)
            await requests.wanted.put(None)


_exchanges: dict[tuple[str, str], tuple[str, Any]] = {}
"""The name and the handle of the actor, by the ids of the node and the driver. It takes a second to start, so all jobs
of a driver share it."""


@contextmanager
def feeding(blocks: Sequence[pa.Table]) -> Iterator[tuple[list[pa.Table], set[int]]]:
    """Yield a ticket for each block, and the numbers of the blocks that workers have asked for so far.

    Until the end of the context, a block is cut whenever a worker asks for it.

    Raises:
        Exception: A block could not be cut; the original error.
    """
    job = uuid.uuid4().hex
    name, exchange = _opened(job)
    taken = set[int]()
    with ThreadPoolExecutor(1) as threads:
        feed = threads.submit(_feed, exchange, job, blocks, taken)
        try:
            yield [pa.table({BLOCK: [number], _FEED: [name], _JOB: [job]}) for number in range(len(blocks))], taken
        finally:
            exchange.close.remote(job)
            feed.result()


def _opened(job: str) -> tuple[str, Any]:
    """Open a job at the driver's actor; return the actor's name and handle. Start it if there is none, or it died."""
    import ray

    context = ray.get_runtime_context()
    key = context.get_node_id(), context.get_job_id()
    if key in _exchanges:
        with suppress(ray.exceptions.RayActorError):
            ray.get(_exchanges[key][1].open.remote(job))
            return _exchanges[key]
    _exchanges.clear()  # those of a Ray that this process has left
    _exchanges[key] = name, exchange = _started(context.get_node_id())
    ray.get(exchange.open.remote(job))
    return name, exchange


def _started(node: str) -> tuple[str, Any]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"blocks-{uuid.uuid4().hex}"
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "max_concurrency": _WAITING, "scheduling_strategy": here}
    return name, ray.remote(_Exchange).options(name=name, **options).remote()


def _feed(exchange: Any, job: str, blocks: Sequence[pa.Table], taken: set[int]) -> None:
    """Answer requests until the job is closed; add the numbers of the blocks to `taken`."""
    import ray

    try:
        while request := ray.get(exchange.next_request.remote(job)):
            taken.add(request[1])
            exchange.answer.remote(job, request[0], blocks[request[1]])
    except ray.exceptions.RayError:
        return
    finally:
        exchange.close.remote(job)  # if a block could not be cut, nobody must wait for it


def rows_of(block: pa.Table) -> pa.Table:
    """Return the rows of a block without its number; for a ticket, those of its block.

    Raises:
        UserError: The driver gives no more blocks: it could not cut one, or the machine lost the actor.
    """
    if _FEED not in block.column_names:
        return block.drop_columns([BLOCK])
    import ray

    try:
        exchange = ray.get_actor(block[_FEED][0].as_py())
        rows = ray.get(exchange.block.remote(block[_JOB][0].as_py(), block[BLOCK][0].as_py()))
    except (ValueError, ray.exceptions.RayActorError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"the driver gives no more blocks ({why}); what is stored stays, run again to go on") from error
    if rows is None:
        raise UserError("the driver gives no more blocks: the job has ended; what is stored stays, run again to go on")
    return rows
