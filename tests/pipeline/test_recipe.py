"""Recipes are checked as a whole before anything runs, and every refusal says what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.recipe import load_recipe, parse_recipe

GOOD: dict[str, Any] = {
    "name": "x",
    "pool": {"images": "pool"},
    "stages": [{"stage": "aspect_ratio", "keep": {"max": 2.5, "min_side": 200}, "resources": {"batch_size": 8}}],
}


GROUPED = [{"stage": "conse"}, {"stage": "hashes"}, {"stage": "clusters", "clusters": 2}]


def with_stage(**changes: object) -> dict[str, Any]:
    return {**GOOD, "stages": [{**GOOD["stages"][0], **changes}]}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([], "must be a mapping with name, pool, stages"),
        ({**GOOD, "stage": []}, "unknown key 'stage'; did you mean 'stages'"),
        ({"stages": []}, "no pool; say where the images are"),
        ({**GOOD, "pool": {"image": "pool"}}, "exactly one of images, tars, parquet, img2dataset"),
        ({**GOOD, "pool": {"imges": "pool"}}, "pool: unknown key 'imges'; did you mean 'images'"),
        ({**GOOD, "pool": {"images": "a", "tars": "b"}}, "exactly one of"),
        ({**GOOD, "pool": {"images": "a", "id": "b"}}, "columns of a parquet pool"),
        ({**GOOD, "pool": {"images": 3}}, "images: Input should be a valid string"),
        (
            {**GOOD, "stages": [{"stage": "short_caption", "prompts": ["Say \ud83d"]}]},
            r"stages\[0\] \(short_caption\): prompts: not valid Unicode: U\+D83D at character 4",
        ),
        ({**GOOD, "stages": {"stage": "aspect_ratio"}}, "stages must be a list"),
        ({**GOOD, "stages": ["aspect_ratio"]}, "must be a mapping with `stage`"),
        ({**GOOD, "stages": [{"keep": {}}]}, "no stage; valid are"),
        ({**GOOD, "stages": [{"stage": "aspectratio"}]}, r"stages\[0\]: unknown stage 'aspectratio'; did you mean"),
        (with_stage(min_side=200), "a rule stands under keep: `keep: {min_side: …}`"),
        (with_stage(resorces={}), "unknown key 'resorces'; did you mean 'resources'"),
        (with_stage(resources={"gpus": 1}), "unknown key 'gpus'; did you mean 'num_gpus'"),
        (with_stage(resources={"actors": 0}), "actors: Input should be greater than or equal to 1"),
        ({**GOOD, "stages": [*GROUPED, {"stage": "duplicates", "resources": {"batch_size": 8}}]}, "part_rows says"),
        (with_stage(keep={"max": 0.5}), "aspect_ratio runs from 1 to inf"),
        (with_stage(keep={"max_sides": 5}), "unknown rule 'max_sides'; did you mean 'max_side'"),
        (with_stage(keep=[1]), "keep must be a mapping of rules"),
        ({**GOOD, "stages": GOOD["stages"] * 2}, "aspect_ratio comes a second time"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(recipe: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(recipe, "r.yaml")


def test_a_resolved_recipe_is_a_recipe_and_resolves_to_itself(tmp_path: Path) -> None:
    first = parse_recipe(GOOD, "r.yaml").resolved()
    stored = tmp_path / "recipe.yaml"
    stored.write_text(yaml.safe_dump(first))
    assert load_recipe(str(stored)).resolved() == first
    assert first["stages"][0]["keep"] == {"max_aspect_ratio": 2.5, "min_side": 200}


def test_thresholds_and_resources_do_not_change_the_fingerprint() -> None:
    other = with_stage(keep={"max": 3}, resources={"actors": 2})
    assert parse_recipe(GOOD, "r").steps[0].table == parse_recipe(other, "r").steps[0].table


def test_every_recipe_of_the_repository_is_valid() -> None:
    from model.training.recipe import load_recipe as load_training

    recipes = sorted(Path("recipes").glob("*.yaml"))
    trainings = {path for path in recipes if path.name.startswith("train-")}
    assert trainings
    assert set(recipes) - trainings
    for path in recipes:
        (load_training if path in trainings else load_recipe)(str(path))


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such recipe"):
        load_recipe(str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("stages: [")
    with pytest.raises(ValueError, match="not YAML") as refused:
        load_recipe(str(broken))
    assert "\n" not in str(refused.value)
