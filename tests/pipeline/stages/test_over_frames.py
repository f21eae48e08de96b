"""Stages for images in runs of clips: facts of the stored frames, summed up for each clip."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from captioners.recaption import ShortCaption
from core.errors import BadSampleError, UserError
from core.stages import ImageFacts, ImageStage
from filters.aesthetic import Aesthetic
from filters.hashes import Hashes
from manifests.embeddings import embedding_column, from_matrix, to_matrix
from manifests.schemas import column, is_bulky
from pipeline.stages.over_frames import OverEmbeddings, OverFrames, for_clips


class Brightness(ImageStage):
    """A number, a name and an embedding of each image; images of level 99 fail in the model."""

    name: ClassVar = "brightness"
    writes: ClassVar = pa.schema(
        [
            column("brightness", pa.int32(), "Level", 0, 255),
            column("level_name", pa.string(), "Name of the level"),
            embedding_column("direction", 2, "levels", "Direction"),
        ]
    )

    def load(self) -> ImageFacts:
        return _Levels()


class _Levels(ImageFacts):
    def prepare(self, image: Image.Image) -> int:
        level = int(np.asarray(image).mean().round())
        if level > 250:
            raise BadSampleError("too bright: it has no level")
        return level

    def __call__(self, inputs: Sequence[int]) -> pa.Table:
        angles = np.array(inputs) * np.pi / 180
        vectors, _ = from_matrix(np.stack([np.cos(angles), np.sin(angles)], 1))
        errors = [("odd: 99" if level == 99 else None) for level in inputs]
        names = [f"level {level}" for level in inputs]
        columns = [pa.array(inputs, pa.int32()), names, vectors, errors, [error is not None for error in errors]]
        return pa.table(columns, names=[*Brightness.writes.names, "error", "retry"])


class Named(ImageStage):
    """A text about each image; it counts the images that it was asked about."""

    name: ClassVar = "named"
    asked: ClassVar[list[int]] = []
    writes: ClassVar = pa.schema([column("title", pa.string(), "A title")])

    def measure(self, image: Image.Image) -> Mapping[str, object]:
        self.asked.append(int(np.asarray(image).mean().round()))
        return {"title": f"picture of {self.asked[-1]}"}


def jpeg(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (level, level, level)).save(file, "JPEG", quality=95)
    return file.getvalue()


def facts_of(stage: ImageStage, *clips: Sequence[int]) -> list[dict[str, Any]]:
    over = for_clips(stage)
    assert isinstance(over, OverFrames)
    loaded = over.load()
    prepared = [loaded.prepare([jpeg(level) for level in clip], [2.0 * n for n in range(len(clip))]) for clip in clips]
    table = loaded(prepared)
    assert table.schema.names[:-2] == over.writes.names
    return table.to_pylist()


def test_numbers_are_the_mean_and_the_extremes_of_the_frames() -> None:
    first, second = facts_of(Brightness(), [10, 20, 60], [7])
    assert (first["brightness"], first["brightness_min"], first["brightness_max"]) == (30.0, 10.0, 60.0)
    assert (second["brightness"], second["brightness_min"], second["brightness_max"]) == (7.0, 7.0, 7.0)


def test_name_is_that_of_the_middle_frame() -> None:
    assert [row["level_name"] for row in facts_of(Brightness(), [10, 20, 60], [5, 6])] == ["level 20", "level 6"]


def test_embedding_is_the_mean_direction_and_each_is_kept() -> None:
    (row,) = facts_of(Brightness(), [0, 90])
    assert np.allclose(row["direction"], [np.sqrt(0.5), np.sqrt(0.5)], atol=1e-3)
    assert np.allclose(row["direction_frames"], [[1, 0], [0, 1]], atol=1e-3)
    assert is_bulky(OverFrames(inner=Brightness()).writes.field("direction_frames"))


def test_clip_with_a_failed_frame_has_only_the_error() -> None:
    good, bad = facts_of(Brightness(), [10, 20], [10, 20, 99])
    assert (bad["error"], bad["retry"]) == ("odd: 99 (frame at 4.0 s)", True)
    assert {bad[name] for name in ("brightness", "brightness_max", "level_name")} == {None}
    assert bad["direction"] is None
    assert (good["error"], good["brightness_max"]) == (None, 20.0)


def test_frame_that_cannot_be_used_is_the_error_of_its_clip() -> None:
    with pytest.raises(BadSampleError, match="too bright"):
        facts_of(Brightness(), [10, 255])


def test_clip_without_frames_is_an_error() -> None:
    loaded = OverFrames(inner=Brightness()).load()
    with pytest.raises(BadSampleError, match="no frames"):
        loaded.prepare(None, None)


def test_text_is_computed_of_the_middle_frame_only() -> None:
    Named.asked.clear()
    rows = facts_of(Named(), [1, 50, 3], [9])
    assert [row["title"] for row in rows] == ["picture of 50", "picture of 9"]
    assert sorted(Named.asked) == [9, 50]


def test_stage_reads_the_frames_in_place_of_the_image() -> None:
    over = for_clips(Hashes())
    assert tuple(over.reads) == ("frames", "frame_times")
    assert over.name == "hashes"
    assert over.fingerprint_settings() != Hashes().fingerprint_settings()


def test_captions_of_single_images_are_refused() -> None:
    with pytest.raises(UserError, match="dense_caption"):
        for_clips(ShortCaption())


def test_aesthetic_is_that_of_each_frame(tmp_path: Path) -> None:
    weights = torch.arange(1.0, 5.0)[None]
    save_file({"weight": weights, "bias": torch.tensor([5.0])}, tmp_path / "head.safetensors")
    stage = Aesthetic(predictor="laion-v1", weights=str(tmp_path / "head.safetensors"), encoder="e")
    vectors, _ = from_matrix(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    lists = pa.ListArray.from_arrays([0, 2, 2, 3], vectors)
    over = for_clips(stage)
    assert isinstance(over, OverEmbeddings)
    field = embedding_column("image_embedding_frames", 4, "e", "x").with_type(lists.type)
    over.validate_inputs({"image_embedding_frames": field})
    rows = over.load()(pa.table({"image_embedding_frames": lists})).to_pylist()
    scores = to_matrix(vectors)[0] @ weights[0].numpy() + 5
    assert rows[0]["aesthetic"] == pytest.approx(scores[:2].mean(), abs=1e-3)
    assert rows[0]["aesthetic_min"] == pytest.approx(scores[:2].min(), abs=1e-3)
    assert rows[2]["aesthetic_max"] == pytest.approx(scores[2], abs=1e-3)
    assert (rows[1]["aesthetic"], rows[1]["error"]) == (None, "no frames: nothing is stored")


class Extremes(Brightness):
    """A number, and another one that is called like the smallest value of the first."""

    name: ClassVar = "extremes"
    writes: ClassVar = pa.schema([column(name, pa.int32(), "Level", 0, 255) for name in ("level", "level_min")])


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="extremes writes level_min, and for clips level_min is also made from another"):
        for_clips(Extremes())


def test_clips_with_one_frame_in_common_are_no_copies() -> None:
    """A black frame in the middle makes no two clips equal."""
    facts = for_clips(Hashes()).load()
    clips = [[jpeg(level), jpeg(0), jpeg(level)] for level in (40, 80, 40)]
    hashes = facts([facts.prepare(frames, [0.0, 1.0, 2.0]) for frames in clips])["content_hash"].to_pylist()
    assert hashes[0] == hashes[2] != hashes[1]
