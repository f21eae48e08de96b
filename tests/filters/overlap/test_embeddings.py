"""The search by embeddings: the cosine, its threshold, and what the hashes found already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL.Image import Image

from core.errors import BadSampleError
from core.stages import ImageFacts
from filters.overlap.benchmark import Benchmark
from filters.overlap.embeddings import Embedder, EmbeddingIndex
from manifests.embeddings import from_matrix
from tests.filters.overlap.pictures import jpeg, png, scene


class MeanColour(ImageFacts):
    """An encoder that knows an image's mean colour alone."""

    def prepare(self, image: Image) -> npt.NDArray[np.float32]:
        return np.asarray(image, np.float32).mean(axis=(0, 1))

    def __call__(self, inputs: Sequence[npt.NDArray[np.float32]]) -> pa.Table:
        return pa.table({"image_embedding": from_matrix(np.stack(inputs))[0]})


def test_images_from_the_cosine_on_are_found_most_similar_first() -> None:
    index = EmbeddingIndex([4, 7, 9], [np.array(v, np.float32) for v in ([1, 0], [0.6, 0.8], [0.8, 0.6])])
    assert [match.row for match in index.search(np.array([1, 0], np.float32), 0.75)] == [4, 9]
    assert index.search(np.array([1, 0], np.float32), 0.75)[1].cosine == pytest.approx(0.8)
    assert EmbeddingIndex([], []).search(np.array([1, 0], np.float32), 0) == []


def test_embedding_finds_the_mirrored_copy_that_hashes_do_not(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(scene(1)))
    mirrored, copy = jpeg(scene(1).transpose(0), 95), jpeg(scene(1))  # type: ignore[arg-type]
    benchmark = Benchmark(str(tmp_path), Embedder(MeanColour()), cosine=0.999)
    assert [hit.kind for hit in benchmark.search([(mirrored, benchmark.decoded(mirrored))], []).hits] == ["embedding"]
    assert [hit.kind for hit in benchmark.search([(copy, benchmark.decoded(copy))], []).hits] == ["picture"]
    alone = Benchmark(str(tmp_path))
    assert alone.search([(mirrored, alone.decoded(mirrored))], []).hits == ()


def test_picture_without_an_embedding_is_a_bad_sample() -> None:
    with pytest.raises(BadSampleError, match="no embedding"):
        Embedder(MeanColour())(scene(0).point(lambda value: 0))
