"""Engines of other packages, named by their path, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image
from pydantic import ValidationError

from captioners.engines.base import Answer, Engine, EngineConfig, Question, Sampling
from captioners.recaption import ShortCaption
from tests.conftest import MakeImages
from tests.runs import run

PATH = "tests.captioners.engines.test_registry:Sizes"


class Sizes(EngineConfig):
    """An engine that says how large a picture is."""

    unit: str = "pixels"

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> Engine:
        return _Sizes(model, self.unit)


class _Sizes(Engine):
    def __init__(self, model: str, unit: str) -> None:
        self._model, self._unit = model, unit
        self.provenance = {"engine": "sizes"}

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        return [self._answer(question.image) for question in questions]

    def _answer(self, image: Image | bytes) -> Answer:
        assert isinstance(image, Image)
        return Answer(f"{self._model} sees {image.width} by {image.height} {self._unit}.")


@pytest.mark.usefixtures("engine")
def test_engine_by_path_writes_the_captions(tmp_path: Path, make_images: MakeImages) -> None:
    stage = {"stage": "short_caption", "model": "m", "engine": {"kind": PATH, "unit": "dots"}}
    recipe = {"pool": {"images": str(make_images(tmp_path / "pool", 3))}, "stages": [stage]}
    opened, _ = run(recipe, tmp_path / "run")
    rows = opened.manifest().select("width", "height", "short_caption").collect().rows()
    assert [row[2] for row in rows] == [f"m sees {width} by {height} dots." for width, height, _ in rows]
    assert len(rows) == 3
    assert opened.stages[-1].table.provenance()["engine"] == "sizes"


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        ({"kind": "serve"}, "kind: unknown engine 'serve'; did you mean 'server'?"),
        ({"kind": "no_such_package:Sizes"}, "no_such_package:Sizes: no module no_such_package: install its package"),
        ({"kind": "json:JSONDecoder"}, "json has no class JSONDecoder made from captioners.engines.base.EngineConfig"),
        ({"kind": PATH, "units": "dots"}, "units: Extra inputs are not permitted"),
    ],
)
def test_wrong_engine_is_refused_in_one_line(engine: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ShortCaption(engine=engine)  # type: ignore[arg-type]
    (error,) = caught.value.errors()
    assert line in error["msg"]
    assert "\n" not in error["msg"]
