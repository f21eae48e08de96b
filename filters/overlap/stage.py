"""The stage `overlap`: what of a benchmark is in an image and its texts, as columns for a rule to drop it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from PIL.Image import Image
from pydantic import Field, ValidationInfo, field_validator

from core.errors import UserError
from core.paths import check_path
from core.stages import ENCODED, IMAGE, ImageFacts, ImageStage
from filters.overlap.benchmark import Benchmark, Found
from filters.overlap.files import content_hash
from filters.overlap.windows import SIDE
from manifests.schemas import column


class Overlap(ImageStage):
    """How much of a benchmark is in an image and its texts. `keep: {max: 0}` drops every image with a hit.

    `overlap` is 0 where nothing was found; 1 for the same picture; 1 - distance/64 for a picture that was changed or
    cropped; for a text the share of its n-grams that were found. The other columns are null where nothing was found.
    docs/overlap.md says what is found and what is not.

    Every worker holds the index of the benchmark: 18 KB for each image, and the texts.

    Attributes:
        benchmark: A folder of images, or a file of rows with images or questions, on this machine.
        texts: Texts to search too: captions of earlier stages, `alt_text`, or `pool.X`, column X of the pool's files.
        content: Hash of the benchmark's content, a part of the fingerprint; by default that of what lies there now. A
            run's recipe has it, so that the stored rows stay valid if the file is gone.
    """

    name: ClassVar = "overlap"
    benchmark: str
    texts: tuple[str, ...] = ()
    content: str | None = Field(None, validate_default=True)

    writes: ClassVar = pa.schema(
        [
            column("overlap", pa.float32(), "How much of a row of the benchmark was found; 0: nothing", 0, 1),
            column("overlap_kind", pa.string(), "file, pixels, picture, crop or text; null: nothing was found"),
            column("overlap_with", pa.string(), "Id of the benchmark's row; null: nothing was found"),
            column("overlap_distance", pa.int32(), "Bits by which the perceptual hashes differ; null: no image", 0, 64),
        ]
    )
    fingerprint_exclude: ClassVar = ("benchmark",)

    @field_validator("benchmark")
    @classmethod
    def _check_benchmark(cls, benchmark: str) -> str:
        return check_path(benchmark, "benchmark")

    @field_validator("content")
    @classmethod
    def _with_content(cls, content: str | None, info: ValidationInfo) -> str | None:
        benchmark = info.data.get("benchmark")
        return content_hash(benchmark) if content is None and benchmark else content

    @property
    def reads(self) -> Sequence[str]:
        return (IMAGE, ENCODED, *self.texts)

    @property
    def model_files(self) -> Mapping[str, str]:
        return {"benchmark": self.benchmark}

    def remedy(self, column: str) -> str:
        return f"put the stage that writes {column} before this one, or name other texts, as in `texts: [alt_text]`"

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        for name, field in inputs.items():
            if not pa.types.is_string(field.type):
                raise UserError(f"texts: {name} is {field.type}, not text")

    def load(self) -> _Search:
        benchmark = Benchmark(self.benchmark)
        if benchmark.content != self.content:
            raise UserError(
                f"overlap: {self.benchmark} is not what it was when the recipe was read: leave `content` out of the "
                "recipe and run it again, to search for what is there now"
            )
        return _Search(benchmark)


class _Search(ImageFacts):
    """`ImageFacts` of `overlap`; `prepare` does all the work, in threads."""

    side = SIDE
    has_model = False

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        self.provenance = {
            "benchmark_images": benchmark.images,
            "benchmark_rows": benchmark.items,
            "benchmark_unread": sum(benchmark.problems.counts.values()),
        }

    def prepare(self, image: Image, encoded: bytes, *texts: Any) -> Found:
        """Search for what an image and its texts have of the benchmark."""
        if wrong := next((text for text in texts if not isinstance(text, str | None)), None):
            raise UserError(f"texts: a column of the pool holds {type(wrong).__name__}, not text: name another one")
        return self._benchmark.search([(encoded, image)], [text for text in texts if text])

    def __call__(self, inputs: Sequence[Found]) -> pa.Table:
        best = [found.hits[0] if found.hits else None for found in inputs]
        rows = [
            (hit.overlap, hit.kind, hit.benchmark_id, hit.distance) if hit else (0.0, None, None, None) for hit in best
        ]
        columns = [pa.array([row[n] for row in rows], field.type) for n, field in enumerate(Overlap.writes)]
        return pa.table(columns, schema=Overlap.writes)
