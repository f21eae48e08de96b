"""Ray's workers get blocks when they ask for them: the driver holds none that nobody computes."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import UserError
from pipeline.execution import block_feed
from pipeline.execution.block_feed import BLOCK, rows_of
from pipeline.execution.blocks import Blocks
from pipeline.execution.ray_job import map_blocks, run_job
from pipeline.execution.receipts import receipt, reported


@dataclass(frozen=True)
class Counted(Blocks):
    """Blocks of one row, its number; records which are cut, and how many of them are not computed yet."""

    total: int
    computed: Path
    damaged: int | None = None
    cuts: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.total

    def cut(self, number: int) -> pa.Table:
        if number == self.damaged:
            raise UserError("the part is damaged")
        self.cuts.append(number)
        self.waiting.append(len(self.cuts) - len(list(self.computed.iterdir())))
        return pa.table({"number": [number]})


def compute(block: pa.Table, computed: Path, killers: Sequence[int] = ()) -> pa.Table:
    """Write a file for a block; at the first try of each of `killers`, die."""
    number = block["number"][0].as_py()
    if number in killers and not (tried := computed.with_name(f"tried-{number}")).exists():
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (computed / str(number)).touch()
    return receipt(block.num_rows, 0)


def job(folder: Path, killers: Sequence[int] = ()) -> Any:
    def of_dataset(dataset: Any, alone: bool = False) -> Any:
        call = partial(compute, computed=folder, killers=killers)
        return map_blocks(dataset, reported, fn_kwargs={"call": call})

    return of_dataset


@pytest.fixture
def computed(tmp_path: Path) -> Path:
    (tmp_path / "computed").mkdir()
    return tmp_path / "computed"


@pytest.mark.usefixtures("engine")
def test_blocks_are_cut_as_workers_take_them(computed: Path) -> None:
    import ray

    blocks = Counted(40, computed)
    assert run_job(blocks, job(computed)).rows == 40
    assert sorted(blocks.cuts) == list(range(40))
    assert max(blocks.waiting) <= ray.cluster_resources()["CPU"], "a worker computes one block at a time"


@pytest.mark.usefixtures("engine")
def test_block_whose_worker_died_is_cut_again(computed: Path) -> None:
    blocks = Counted(8, computed)
    assert run_job(blocks, job(computed, killers=[3])).rows == 8
    assert Counter(blocks.cuts) == Counter([*range(8), 3])


@pytest.mark.thorough
@pytest.mark.usefixtures("engine")
def test_blocks_that_no_worker_got_are_not_cut_together(computed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Data gives up as a node with many workers is lost."""
    monkeypatch.setattr("pipeline.execution.ray_job._MOST_LOST", 1)
    looks = count()
    monkeypatch.setattr("pipeline.execution.losses._nodes", lambda: ({str(next(looks))}, {"head"}))
    blocks = Counted(60, computed)
    assert run_job(blocks, job(computed, killers=[0, 1, 2])).rows == 60
    assert sorted(map(int, os.listdir(computed))) == list(range(60))
    assert len(blocks.cuts) > 60, "blocks that were lost are cut again"
    assert max(blocks.waiting) < 20, "only those that workers had"


@pytest.mark.usefixtures("engine")
def test_error_of_a_block_that_cannot_be_cut_ends_the_job(computed: Path) -> None:
    with pytest.raises(UserError, match=r"^the part is damaged$"):
        run_job(Counted(8, computed, damaged=5), job(computed))


@pytest.mark.usefixtures("engine")
def test_jobs_share_the_actor_until_it_dies(computed: Path) -> None:
    import ray

    def actor() -> Any:
        ((_, handle),) = block_feed._exchanges.values()
        return handle

    assert run_job(Counted(1, computed), job(computed)).rows == 1
    first = actor()
    assert run_job(Counted(2, computed), job(computed)).rows == 2
    assert actor() is first
    ray.kill(first)
    assert run_job(Counted(3, computed), job(computed)).rows == 3
    assert actor() is not first


@pytest.mark.usefixtures("engine")
def test_block_of_a_job_that_has_ended_is_a_user_error() -> None:
    with block_feed.feeding([pa.table({"id": [1]})]) as (tickets, taken):
        assert rows_of(tickets[0]).equals(pa.table({"id": [1]}))
        assert taken == {0}
    with pytest.raises(UserError, match="the driver gives no more blocks: the job has ended"):
        rows_of(tickets[0])


@pytest.mark.usefixtures("engine")
def test_worker_that_waits_as_the_job_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver does not cut any more: it is stopped while a worker waits."""
    monkeypatch.setattr(block_feed, "_feed", lambda *_: None)
    with ThreadPoolExecutor(1) as threads:
        with block_feed.feeding([pa.table({"id": [1]})]) as (tickets, _):
            waiting = threads.submit(rows_of, tickets[0])
            time.sleep(0.2)
            assert not waiting.done()
        with pytest.raises(UserError, match="the driver gives no more blocks: the job has ended"):
            waiting.result(timeout=60)


def test_rows_of_a_block_without_a_ticket_are_its_own() -> None:
    assert rows_of(pa.table({"id": [1, 2], BLOCK: [0, 0]})).equals(pa.table({"id": [1, 2]}))
