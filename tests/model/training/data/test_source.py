"""Training sources of other packages, named by the path of their class, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import BadSampleError, UserError
from model.training.data.samples import Sample
from model.training.data.source import Source
from model.training.metrics_log import read_metrics
from model.training.recipe import TrainRecipe, load_recipe, parse_recipe
from model.training.run import train
from tests.model.training import training_data

EXAMPLE = Path(__file__).parents[4] / "examples/my_source/sums.py"


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a class in a file that lies in no package and not in this project."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/sums_elsewhere.py").write_text(EXAMPLE.read_text())
    monkeypatch.syspath_prepend(tmp_path / "outside")
    return "sums_elsewhere:Sums"


def recipe(folder: Path, **settings: Any) -> dict[str, Any]:
    """One stage over the project's two kinds of source and one of another package."""
    written = training_data.recipe(folder, rows=2, steps=4)
    written["sources"]["sums"] = settings
    written["stages"] = [written["stages"][1]]
    written["stages"][0]["mixture"]["sums"] = {"samples": 40}
    return written


def test_source_class_by_path_is_trained_on_and_evaluated(tmp_path: Path, kind: str) -> None:
    written = recipe(tmp_path, kind=kind, largest=7, held_out=3)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    model = train(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "out")
    held_out = [line for line in read_metrics(tmp_path / "out") if line["kind"] == "held_out"]
    assert set(held_out[-1]["losses"]) == {"captions", "qa", "sums"}
    provenance = json.loads((model / "vl3syn_training.json").read_text())
    assert provenance["recipe"]["sources"]["sums"] == {"kind": kind, "held_out": 3, "largest": 7}
    stored = load_recipe(tmp_path / "out/recipe.yaml")
    assert parse_recipe(stored.model_dump(mode="json"), "again") == stored
    with pytest.raises(UserError, match=r"a training with source sums {.*'largest': 7} is there, the recipe says"):
        train(parse_recipe(recipe(tmp_path, kind=kind, largest=8, held_out=3), "r"), tmp_path / "out")


def test_source_class_by_path_is_trained_on_by_the_command(
    tmp_path: Path, kind: str, vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    written = recipe(tmp_path, kind=kind)
    written["stages"][0] |= {"mixture": {"sums": 1}, "steps": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    done = vl3syn("train", tmp_path / "recipe.yaml", "--run", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "an epoch: sums 100 of 100" in done.stdout


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"kind": "shards"}, "sources.sums: kind: shards: give the path of a class, package.module:Class"),
        ({"kind": "no_such_package:Sums"}, "sources.sums: no_such_package:Sums: no module no_such_package: install"),
        ({"kind": "json:JSONDecoder"}, "no class JSONDecoder made from model.training.data.source.SourceConfig"),
        ({"kind": "sums_elsewhere:Sums", "larger": 7}, "sources.sums.larger: unknown key"),
        ({"kind": "sums_elsewhere:Sums", "largest": 0}, "sources.sums.largest: Input should be greater than"),
        ("shards", "sources.sums: must be a mapping"),
    ],
)
@pytest.mark.usefixtures("kind")
def test_invalid_source_is_refused_in_one_line(tmp_path: Path, settings: Any, line: str) -> None:
    written = recipe(tmp_path)
    written["sources"]["sums"] = settings
    with pytest.raises(UserError) as refused:
        parse_recipe(written, "r.yaml")
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_source_with_the_keys_of_both_kinds_is_read() -> None:
    """Recipes that earlier versions wrote have all keys of both kinds."""
    rest = {"media": None, "roots": [], "held_out": 2}
    sources = {
        "captions": {"shards": "s", "caption": "short", "annotations": None, **rest},
        "qa": {"shards": None, "caption": "detailed", "annotations": "qa.jsonl", **rest},
    }
    stage = {"name": "one", "learning_rates": {"": 1e-3}, "mixture": {"captions": 1, "qa": 1}, "steps": 1}
    written = {"model": {"preset": "tiny"}, "stages": [stage]}
    read = parse_recipe({**written, "sources": sources}, "r.yaml").model_dump(mode="json")["sources"]
    assert read == {
        "captions": {"held_out": 2, "shards": "s", "caption": "short"},
        "qa": {"held_out": 2, "annotations": "qa.jsonl", "media": None, "roots": []},
    }


def test_schema_of_training_recipes_has_every_kind_of_source() -> None:
    kinds = TrainRecipe.model_json_schema()["properties"]["sources"]["additionalProperties"]["anyOf"]
    assert [kind["required"] for kind in kinds] == [["shards"], ["annotations"], ["records"], ["kind"]]


class Bad(Source):
    name, blocks = "bad", (3, 4)

    def sample(self, row: int) -> Sample:
        raise BadSampleError(f"{self.name}: row {row}: no answer")


def test_source_without_a_good_sample_is_refused_before_training() -> None:
    with pytest.raises(UserError, match="none of 7 samples can be read, so the run stops; the first: bad: row 0: no"):
        Bad().check()
