"""The dataset card lists the models that the stages declare, and `vl3syn doctor` the packages that they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from captioners.engines.base import Answer, Engine, EngineConfig, Question, Sampling
from filters.aesthetic import Aesthetic
from filters.aspect_ratio import AspectRatio
from manifests.storage import Folder
from pipeline.commands.findings import examine
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.runs import run_here

HERE = "tests.pipeline.publishing.test_card"


class Licensed(AspectRatio):
    """A filter of another package with a model of its own."""

    name: ClassVar = "licensed"
    models: ClassVar = {"/home/me/edge-net": "CC-BY-4.0", "edge-head": None}


class Trusting(EngineConfig):
    """An engine that says that it has run code of the model's author."""

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> Engine:
        engine = Answering()
        engine.provenance = {"engine": "trusting", "trust_remote_code": True, "revision": revision}
        return engine


class Answering(Engine):
    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer("A grey square.") for _ in questions]


class Lacking(AspectRatio):
    """A filter that imports packages that are not installed."""

    name: ClassVar = "lacking"
    packages: ClassVar = {"no_such_package": "", "no_such_model": "offline"}


@pytest.mark.usefixtures("here")
def test_card_states_the_licences_that_a_stage_declares(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "pool" / "a.png")
    with chat_server() as server:
        engine = {"kind": "server", "url": server.url}
        captions = {"stage": "short_caption", "model": "OpenGVLab/InternVL2-8B", "engine": engine}
        stages = [{"stage": f"{HERE}:Licensed"}, captions]
        opened, _ = run_here({"pool": {"images": str(tmp_path / "pool")}, "stages": stages}, tmp_path / "run")
    publish(opened, recipe_of(opened), Publish(), Folder.at(tmp_path / "out"), "out")
    lines = (tmp_path / "out" / "README.md").read_text().split("## Models")[1].split("##")[0].split("\n")
    assert [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line][2:] == [
        ["licensed", "edge-net", "not told", "CC-BY-4.0"],
        ["licensed", "edge-head", "not told", "see the model's page"],
        ["short_caption", "OpenGVLab/InternVL2-8B", "not told", "MIT"],
    ]


class Private(AspectRatio):
    """A filter whose columns are not published."""

    name: ClassVar = "private"
    published: ClassVar = False


@pytest.mark.usefixtures("here")
def test_card_has_no_scores_that_are_not_published(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "pool" / "a.png")
    with chat_server() as server:
        captions = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server.url}}
        stages = [{"stage": f"{HERE}:Private"}, captions]
        opened, _ = run_here({"pool": {"images": str(tmp_path / "pool")}, "stages": stages}, tmp_path / "run")
    publish(opened, recipe_of(opened), Publish(), Folder.at(tmp_path / "out"), "out")
    scores = (tmp_path / "out" / "README.md").read_text().split("## Scores")[1].split("## Recipe")[0]
    assert "`short_words`" in scores
    assert "`aspect_ratio`" not in scores


@pytest.mark.usefixtures("here")
def test_card_says_that_code_of_a_model_has_run(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "pool" / "a.png")
    stage = {"stage": "short_caption", "model": "a/b", "revision": "0a1b", "engine": {"kind": f"{HERE}:Trusting"}}
    opened, _ = run_here({"pool": {"images": str(tmp_path / "pool")}, "stages": [stage]}, tmp_path / "run")
    publish(opened, recipe_of(opened), Publish(), Folder.at(tmp_path / "out"), "out")
    line = "| short_caption | a/b | 0a1b, with Python code of its own | see the model's page |"
    assert line in (tmp_path / "out" / "README.md").read_text()


def test_card_names_the_predictor_of_the_aesthetic_score() -> None:
    assert Aesthetic().models == {"laion-v2": "Apache-2.0"}


def test_doctor_names_the_missing_packages_of_a_stage(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"pool: {{images: {tmp_path}}}\nstages: [{{stage: '{HERE}:Lacking'}}]")
    finding = examine([str(recipe)])[-1]
    assert (finding.what, finding.state) == (f"recipe {recipe}", "missing")
    assert "lacking needs the package no_such_package: install it" in finding.found
