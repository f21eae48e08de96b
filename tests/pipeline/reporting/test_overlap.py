"""The search of rows for a benchmark, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filters.overlap.benchmark import Benchmark
from filters.overlap.embeddings import Embedder
from pipeline.reporting.overlap import search
from pipeline.reporting.training_rows import TrainingRow
from tests.filters.overlap.pictures import png, scene
from tests.filters.overlap.test_embeddings import MeanColour


def test_images_beside_one_without_embedding_are_searched(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(scene(1)))
    black = png(scene(0).point(lambda value: 0))
    hits: list[dict[str, Any]] = []
    row = TrainingRow("row", images=(black, png(scene(1))))
    done = search([row], Benchmark(str(tmp_path), Embedder(MeanColour())), None, hits.append)
    assert [(hit["data_id"], hit["kind"]) for hit in hits] == [("row", "file")]
    assert (done.images, done.unread, len(done.faults)) == (1, 1, 1)
