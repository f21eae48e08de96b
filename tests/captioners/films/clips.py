"""A table of clips with stored frames, and dense captions of them by a server, without a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioners.chat_stage import ChatStage
from tests.conftest import jpeg
from tests.pipeline.execution.pipelines import compute_columns

SECONDS = 6.0


def clips(count: int, frames: int = 3, **columns: Sequence[Any]) -> pa.Table:
    """So many clips of 6 seconds, each with its own frames; `columns` replace columns, or add some."""
    pictures = [[jpeg(24, 16, number * 100 + frame) for frame in range(frames)] for number in range(count)]
    times = [[SECONDS * frame / max(frames, 1) for frame in range(frames)]] * count
    values = {
        "id": pa.array(range(count), pa.int64()),
        "frames": pa.array(pictures, pa.list_(pa.binary())),
        "frame_times": pa.array(times, pa.list_(pa.float32())),
        "duration": pa.array([SECONDS] * count, pa.float64()),
    }
    return pa.table({**values, **columns})


def rows_of(folder: Path, stage: ChatStage, table: pa.Table) -> list[dict[str, Any]]:
    """The rows that a stage computes, sorted by id."""
    rows: list[dict[str, Any]] = compute_columns(folder, stage, stage.load(), table).to_pylist()
    return rows


def server_engine(url: str, **settings: Any) -> Any:
    return {"kind": "server", "url": url, "pause": 0.01, "timeout": 5, "tries": 2, **settings}
