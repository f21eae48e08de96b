"""The JSON schema of recipes accepts what the parser accepts, and says what settings mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from model.training.recipe import load_recipe as load_training
from pipeline.commands.schema import attribute_docs, recipe_schema, training_schema
from pipeline.recipe import load_recipe
from pipeline.recipe_file import Resources

ROOT = Path(__file__).parents[3]
TRAININGS = sorted(ROOT.glob("recipes/train-*.yaml"))
RECIPES = [path for path in sorted(ROOT.glob("recipes/*.yaml")) if "sources" not in yaml.safe_load(path.read_text())]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(json.dumps(recipe_schema()))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize(
    "path", [*RECIPES, *sorted(ROOT.glob("examples/*/recipe.yaml"))], ids=lambda path: path.parent.name + path.stem
)
def test_recipe_of_the_repository_is_valid(validator: Draft202012Validator, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_resolved_recipe_is_valid(validator: Draft202012Validator, path: Path) -> None:
    resolved = json.loads(json.dumps(load_recipe(str(path)).resolved()))
    assert [error.message for error in validator.iter_errors(resolved)] == []


@pytest.mark.parametrize(
    "stage",
    [
        {"stage": "aspect_ration"},
        {"stage": "aspect_ratio", "keep": {"most": 2}},
        {"stage": "aspect_ratio", "resources": {"gpus": 1}},
        {"stage": "aspect_ratio", "as": "My sizes"},
        {"stage": "aspect_ratio", "as": "index"},
        {"stage": "clip"},
        {"stage": "short_caption", "max_new_tokens": 0},
        {"stage": "short_caption", "engine": {"kind": "server", "url": 7}},
        {"stage": "short_caption", "engine": {"kind": "no_such"}},
    ],
    ids=str,
)
def test_wrong_stage_is_refused(validator: Draft202012Validator, stage: dict[str, Any]) -> None:
    assert not validator.is_valid({"pool": {"images": "a"}, "stages": [stage]})
    assert validator.is_valid({"pool": {"images": "a"}, "stages": [{"stage": "aspect_ratio", "as": "sizes"}]})


@pytest.mark.parametrize(
    "pool",
    [
        {},
        {"image": "a"},
        {"images": "a", "tars": "b"},
        {"images": "a", "id": "n"},
        {"kind": "zips:Zips"},
        {"kind": "a"},
    ],
    ids=str,
)
def test_wrong_pool_is_refused(validator: Draft202012Validator, pool: dict[str, Any]) -> None:
    assert not validator.is_valid({"pool": pool})


@pytest.fixture(scope="module")
def training() -> Draft202012Validator:
    schema = json.loads(json.dumps(training_schema()))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_training_recipe_is_valid_as_written_and_as_stored(training: Draft202012Validator, path: Path) -> None:
    stored = json.loads(json.dumps(load_training(path).model_dump(mode="json")))
    for recipe in (yaml.safe_load(path.read_text()), stored):
        assert [error.message for error in training.iter_errors(recipe)] == []


SIZES = {
    "vision": {"hidden_size": 64},
    "language": dict.fromkeys(["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"], 64),
}


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({"model": SIZES}, True),
        ({"model": {"vision": {"hiden_size": 64}, "language": {}}}, False),
        ({"model": {"presets": "tiny"}}, False),
        ({"sources": {"qa": {"annotations": "qa.jsonl", "held_out": "exam.jsonl"}}}, True),
        ({"sources": {"qa": {"annotations": "qa.jsonl", "heldout": 3}}}, False),
        ({"sources": {"sums": {"kind": "sums:Sums", "largest": 20}}}, True),
        ({"mixture": {"qa": {"samples": 100}}}, True),
        ({"mixture": {"qa": 0}}, False),
        ({"mixture": {"qa": {"weights": 1}}}, False),
        ({"learning_rates": {"": "frozen"}}, True),
        ({"learning_rates": {"": "forzen"}}, False),
        ({"ask": 3}, True),
        ({"num_eval_generations": 3}, False),
    ],
    ids=str,
)
def test_training_schema_accepts_what_the_parser_accepts(
    training: Draft202012Validator, changes: dict[str, Any], valid: bool
) -> None:
    stage: dict[str, Any] = {"name": "one", "learning_rates": {"": 1e-3}, "mixture": {"qa": 1}, "steps": 1}
    stage |= {key: value for key, value in changes.items() if key in stage}
    recipe = {"model": {"preset": "tiny"}, "sources": {"qa": {"annotations": "qa.jsonl"}}, "stages": [stage]}
    recipe |= {key: value for key, value in changes.items() if key not in stage}
    assert training.is_valid(recipe) == valid


def test_setting_is_described_by_its_docstring() -> None:
    stages = {s["properties"]["stage"]["const"]: s for s in recipe_schema()["$defs"]["StageEntry"]["oneOf"][:-1]}
    assert stages["clip"]["properties"]["draft"]["description"].startswith("Decode large JPEGs at a reduced scale")
    assert attribute_docs(Resources)["actors"].startswith("Most actors")


def test_schema_command_prints_json(vl3syn: Any) -> None:
    done = vl3syn("schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(recipe_schema()))
    done = vl3syn("schema", "--training")
    assert json.loads(done.stdout) == json.loads(json.dumps(training_schema()))
