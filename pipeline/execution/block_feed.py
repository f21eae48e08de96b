"""Give blocks to Ray's workers when they ask for them.

Ray Data takes all blocks of a job before the first one is computed. So it gets tickets: tables with the number of a
block. A worker with a ticket asks for the block, through an actor on the driver's machine, and the driver cuts it then.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from core.errors import UserError

BLOCK = "_block"
"""The column of a block, of its ticket and of its receipt that holds the block's number in the job."""

_FEED = "_feed"
"""The column of a ticket with the name of the actor."""

_WAITING = 100_000
"""Number of workers that may wait for a block at the same time."""


class _Exchange:
    """The actor: workers ask it for blocks, and the driver asks it which ones they want."""

    def __init__(self) -> None:
        self._wanted: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[pa.Table]] = {}

    async def block(self, number: int) -> pa.Table:
        request = uuid.uuid4().hex
        answer = self._answers[request] = asyncio.get_running_loop().create_future()
        await self._wanted.put((request, number))
        return await answer

    async def next_request(self) -> tuple[str, int]:
        return await self._wanted.get()

    async def answer(self, request: str, block: pa.Table) -> None:
        self._answers.pop(request).set_result(block)


@contextmanager
def feeding(blocks: Sequence[pa.Table]) -> Iterator[tuple[list[pa.Table], set[int]]]:
    """Yield a ticket for each block, and the numbers of the blocks that workers have asked for so far.

    Until the end of the context, a block is cut whenever a worker asks for it.

    Raises:
        Exception: A block could not be cut; the original error.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"blocks-{uuid.uuid4().hex}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": _WAITING, "scheduling_strategy": here}
    exchange = ray.remote(_Exchange).options(name=name, **options).remote()
    taken = set[int]()
    with ThreadPoolExecutor(1) as threads:
        feed = threads.submit(_feed, exchange, blocks, taken)
        try:
            yield [pa.table({BLOCK: [number], _FEED: [name]}) for number in range(len(blocks))], taken
        finally:
            ray.kill(exchange)
            feed.result()


def _feed(exchange: Any, blocks: Sequence[pa.Table], taken: set[int]) -> None:
    """Answer requests until the actor is killed; add the numbers of the blocks to `taken`."""
    import ray

    try:
        while True:
            request, number = ray.get(exchange.next_request.remote())
            taken.add(number)
            exchange.answer.remote(request, blocks[number])
    except ray.exceptions.RayError:
        return
    finally:
        ray.kill(exchange)  # if a block could not be cut, nobody must wait for it


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
        return ray.get(exchange.block.remote(block[BLOCK][0].as_py()))
    except (ValueError, ray.exceptions.RayActorError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"the driver gives no more blocks ({why}); what is stored stays, run again to go on") from error
