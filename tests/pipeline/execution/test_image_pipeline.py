"""The pipeline inside an actor: order, failures, and how much it holds ahead of the model."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from PIL import Image

from core.errors import BadSampleError, UserError
from core.stages import ImageFacts, ImageStage
from manifests.schemas import column
from pipeline.execution.lookahead import started_ahead
from tests.pipeline.execution.pipelines import compute_images


class Widths(ImageStage):
    name: ClassVar = "widths"
    reads: ClassVar = ("image", "key")
    writes: ClassVar = pa.schema([column("pixels", pa.int32(), "width", 0)])


class WidthFacts(ImageFacts):
    """Refuses images whose width is divisible by 5; notes the batches, and the images prepared before the first one."""

    def __init__(self, calls: int = 1, pause: float = 0.0, error: Exception | None = None) -> None:
        self.calls, self._pause, self._error = calls, pause, error
        self.batches: list[list[int]] = []
        self.prepared = self.running = self.most_running = 0
        self._lock = threading.Lock()

    def prepare(self, image: Image.Image, key: str) -> int:
        with self._lock:
            self.prepared += 1
        if image.width % 5 == 0:
            raise BadSampleError(f"{key} is refused")
        return image.width

    def __call__(self, inputs: Sequence[int]) -> pa.Table:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.batches.append(list(inputs))
        time.sleep(self._pause)
        with self._lock:
            self.running -= 1
        if self._error:
            raise self._error
        return pa.table({"pixels": pa.array(inputs, pa.int32())})


def compute(folder: Path, images: int, facts: WidthFacts, missing: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Send images of the widths 1, 2, … through a pipeline with batches of 4; return the rows, sorted by id."""
    pool = folder / "pool"
    pool.mkdir()
    for width in range(1, images + 1):
        if width not in missing:
            Image.new("RGB", (width, 3)).save(pool / f"{width:03}.png")
    names = [f"{width:03}.png" for width in range(1, images + 1)]
    result: list[dict[str, Any]] = compute_images(folder, Widths(), facts, names, batch_size=4).to_pylist()
    return result


def test_compute_when_some_images_fail_returns_one_row_per_image(tmp_path: Path) -> None:
    facts = WidthFacts()
    rows = compute(tmp_path, 11, facts, missing=[3])
    assert [row["id"] for row in rows] == list(range(11))
    assert [row["pixels"] for row in rows] == [1, 2, None, 4, None, 6, 7, 8, 9, None, 11]
    assert [row["error"] for row in rows if row["id"] in (4, 9)] == ["005.png is refused", "010.png is refused"]
    assert rows[2]["error"].startswith("unreadable: ")
    assert [row["id"] for row in rows if row["retry"]] == [2]
    assert facts.batches == [[1, 2, 4], [6, 7, 8], [9, 11]], "batches of 4 rows in order, without the failed ones"


def test_compute_when_every_image_fails_never_calls_the_model(tmp_path: Path) -> None:
    facts = WidthFacts()
    rows = compute(tmp_path, 3, facts, missing=[1, 2, 3])
    assert [row["retry"] for row in rows] == [True] * 3
    assert facts.batches == []


def test_compute_with_a_slow_model_prepares_a_bounded_number(tmp_path: Path) -> None:
    ahead: list[int] = []

    class SlowFacts(WidthFacts):
        def __call__(self, inputs: Sequence[int]) -> pa.Table:
            time.sleep(0.3)
            ahead.append(self.prepared - sum(map(len, self.batches)))
            return super().__call__(inputs)

    compute(tmp_path, 48, SlowFacts())
    # Two batches are decoded ahead, one is ready, one is in the model, and an image may be on its way to the next one.
    assert max(ahead) <= 4 * (2 + 1 + 1) + 1 + 48 // 5
    assert ahead[0] >= 4 * 3, "threads decode while the model runs"


def test_compute_with_several_calls_limits_the_batches_at_once(tmp_path: Path) -> None:
    facts = WidthFacts(calls=3, pause=0.1)
    rows = compute(tmp_path, 40, facts)
    assert facts.most_running == 3
    assert [row["pixels"] for row in rows] == [None if width % 5 == 0 else width for width in range(1, 41)]


def test_compute_when_the_server_is_gone_raises_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="widths: connection refused"):
        compute(tmp_path, 9, WidthFacts(error=ConnectionError("connection\nrefused")))


def test_model_is_freed_when_its_pipeline_is_dropped(tmp_path: Path) -> None:
    """A process that stays for the next stage cannot hold both models."""
    facts = WidthFacts()
    compute(tmp_path, 9, facts)
    model = weakref.ref(facts)
    del facts
    deadline = time.monotonic() + 10
    while model() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert model() is None


def test_started_ahead_keeps_a_fixed_number_of_tasks_running() -> None:
    started: list[int] = []
    tasks = started_ahead((started.append(number) or number for number in range(6)), 2)
    assert [(number, len(started)) for number in tasks] == [(0, 3), (1, 4), (2, 5), (3, 6), (4, 6), (5, 6)]
