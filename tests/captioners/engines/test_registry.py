"""Engines of other packages, named by their path, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image
from pydantic import ValidationError

from captioners.engines.base import Answer, Engine, EngineConfig, Question, Sampling
from captioners.films.dense import DenseCaption
from captioners.recaption import ShortCaption
from tests.conftest import MakeImages, jpeg
from tests.runs import run, run_stages_on_ray

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

    def _answer(self, image: Image | bytes | None) -> Answer:
        assert isinstance(image, Image)
        return Answer(f"{self._model} sees {image.width} by {image.height} {self._unit}.")


@pytest.mark.usefixtures("engine")
def test_engine_by_path_writes_the_captions(tmp_path: Path, make_images: MakeImages) -> None:
    stage = {"stage": "short_caption", "model": "m", "engine": {"kind": PATH, "unit": "dots"}}
    recipe = {"pool": {"images": str(make_images(tmp_path / "pool", 3))}, "stages": [stage]}
    opened, _ = run_stages_on_ray(recipe, tmp_path / "run")
    rows = opened.manifest().select("width", "height", "short_caption").collect().rows()
    assert [row[2] for row in rows] == [f"m sees {width} by {height} dots." for width, height, _ in rows]
    assert len(rows) == 3
    assert opened.stages[-1].table.provenance()["engine"] == "sizes"


def test_engine_for_one_image_is_refused_by_a_stage_of_clips() -> None:
    """Engines of other packages were written for questions with an image; they say so if they take several."""
    assert not Sizes(kind=PATH).several_images
    with pytest.raises(ValidationError, match=f"{PATH} takes one image per question, and a clip has several"):
        DenseCaption(engine={"kind": PATH})  # type: ignore[arg-type]


SECRET = "sk-" + "aB3dE5gH7jK9mN1pQ3"
ODD = {  # what an engine answers, and the row's tokens, prompt tokens and error
    "key": (Answer(error=f"401 for Authorization: Bearer {SECRET}"), None, None, "401 for Authorization: …"),
    "named key": (Answer(error="no access with word-word-word"), None, None, "no access with …"),
    "escapes": (Answer(error="no \x1b[31mred\x1b[0m\x00\nlight\x9b", tokens=3), 3, None, "no red light"),
    "surrogate": (Answer(error="no \ud83d memory"), None, None, "no memory"),
    "invisible": (Answer(error="\x00"), None, None, "the engine gives an error without words"),
    "an exception": (Answer(error=OSError("no disk")), None, None, "no disk"),  # type: ignore[arg-type]
    "long": (Answer(error="no " * 9000), None, None, ("no " * 334)[:1000]),
    "large": (Answer("A dog.", tokens=1 << 40, prompt_tokens=1 << 31), None, None, None),
    "text": (Answer("A dog.", tokens="5", prompt_tokens=7), None, 7, None),  # type: ignore[arg-type]
    "negative": (Answer("A dog.", tokens=-5, prompt_tokens=0), None, 0, None),
    "float": (Answer("A dog.", tokens=2.5, prompt_tokens=True), None, None, None),  # type: ignore[arg-type]
    "flags": (Answer("A dog.", cut=2, retry=None), None, None, None),  # type: ignore[arg-type]
}


class Odd(EngineConfig):
    """An engine that answers what the model's name says."""

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> Engine:
        return _Odd()


class _Odd(Engine):
    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        return [ODD[question.prompt][0] for question in questions]


@pytest.mark.parametrize("case", ODD)
def test_malformed_answer_of_an_engine_becomes_a_valid_row(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD_API_KEY", "word-word-word")
    engine = {"kind": "tests.captioners.engines.test_registry:Odd"}
    captioner = ShortCaption(model="m", prompts=(case,), engine=engine).load()  # type: ignore[arg-type]
    row = captioner([captioner.prepare(jpeg(8, 8), 0)]).to_pylist()[0]
    _, *expected = ODD[case]
    assert [row["short_tokens"], row["short_prompt_tokens"], row["error"]] == expected
    assert (row["short_caption"], row["short_cut"]) == (
        (None, None) if row["error"] else ("A dog.", int(case == "flags"))
    )
    assert row["retry"] is False


@pytest.mark.usefixtures("here")
def test_key_in_an_engines_error_is_nowhere_in_the_run(tmp_path: Path, make_images: MakeImages) -> None:
    stage = {"stage": "short_caption", "model": "m", "prompts": ["key"], "resources": {"first_errors": 0}}
    stage["engine"] = {"kind": "tests.captioners.engines.test_registry:Odd"}
    recipe = {"pool": {"images": str(make_images(tmp_path / "pool", 3))}, "stages": [stage]}
    opened, _ = run(recipe, tmp_path / "run")
    assert opened.manifest().collect()["drop_reason"].to_list() == ["401 for Authorization: …"] * 3
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        ({"kind": "serve"}, "kind: unknown engine 'serve'; did you mean 'server'?"),
        ({"kind": "no_such_package:Sizes"}, "no_such_package:Sizes: no module no_such_package: install its package"),
        ({"kind": "json:JSONDecoder"}, "json has no class JSONDecoder made from captioners.engines.base.EngineConfig"),
        ({"kind": PATH, "units": "dots"}, "unknown key 'units'"),
    ],
)
def test_wrong_engine_is_refused_in_one_line(engine: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ShortCaption(engine=engine)  # type: ignore[arg-type]
    (error,) = caught.value.errors()
    assert line in error["msg"]
    assert "\n" not in error["msg"]
