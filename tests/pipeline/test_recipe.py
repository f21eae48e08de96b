"""Recipes are checked as a whole before anything runs, and every refusal says what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pytest
import yaml

from core.errors import UserError
from core.stages import Stage
from filters.aspect_ratio import AspectRatio
from manifests.schemas import column
from pipeline.recipe import load_recipe, parse_recipe

GOOD: dict[str, Any] = {
    "name": "x",
    "pool": {"images": "pool"},
    "stages": [{"stage": "aspect_ratio", "keep": {"max": 2.5, "min_side": 200}, "resources": {"batch_size": 8}}],
}


HERE = "tests.pipeline.test_recipe"


class Doubled(AspectRatio):
    """A stage of another package."""

    name: ClassVar = "doubled"


class Impostor(AspectRatio):
    """A stage that has the name of ours."""


class Nameless(Stage):
    """It would be a folder above the run's."""

    name: ClassVar = "../nameless"


class Blind(Stage):
    """It reads images and is not made from ImageStage."""

    name: ClassVar = "blind"
    reads: ClassVar = ("image",)
    writes: ClassVar = pa.schema([column("seen", pa.int8(), "")])


GROUPED = [{"stage": "conse"}, {"stage": "hashes"}, {"stage": "clusters", "clusters": 2}]


TWICE = {**GOOD, "stages": [{"stage": "conse_text", "texts": [text]} for text in ("alt_text", "url")]}


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
        ({**GOOD, "pool": {"images": "a", "id": "b"}}, "pool: a pool of images has no setting 'id'"),
        ({**GOOD, "pool": {"images": 3}}, "images: Input should be a valid string"),
        (
            {**GOOD, "stages": [{"stage": "short_caption", "prompts": ["Say \ud83d"]}]},
            r"stages\[0\] \(short_caption\): prompts: not valid Unicode: U\+D83D at character 4",
        ),
        ({**GOOD, "stages": {"stage": "aspect_ratio"}}, "stages: must be a list"),
        ({**GOOD, "stages": ["aspect_ratio"]}, "must be a mapping with `stage`"),
        ({**GOOD, "stages": [{"keep": {}}]}, "no stage; valid are"),
        (
            {**GOOD, "stages": [{"stage": "aspectratio"}]},
            r"stages\[0\] \(aspectratio\): unknown stage 'aspectratio'; did",
        ),
        ({**GOOD, "stages": [{"stage": "no_such_module:Edges"}]}, "no module no_such_module: install its package"),
        (
            {**GOOD, "stages": [{"stage": "json:JSONDecoder"}]},
            "json has no class JSONDecoder made from core.stages.Stage",
        ),
        ({**GOOD, "stages": [{"stage": f"{HERE}:Nameless"}]}, "give the class a `name` of lower-case letters"),
        ({**GOOD, "stages": [{"stage": f"{HERE}:Blind"}]}, "made from core.stages.ImageStage"),
        ({**GOOD, "stages": [{"stage": "aspect_ratio", "class": f"{HERE}:Doubled"}]}, "is the stage doubled, not"),
        (with_stage(min_side=200), "a rule stands under keep: `keep: {min_side: …}`"),
        (with_stage(resorces={}), "unknown key 'resorces'; did you mean 'resources'"),
        (with_stage(resources={"gpus": 1}), "unknown key 'gpus'; did you mean 'num_gpus'"),
        (with_stage(resources={"num_gpus": 1.5}), "resources: num_gpus: give a whole number, or a part of one GPU"),
        (with_stage(resources={"actors": 0}), "actors: Input should be greater than or equal to 1"),
        ({**GOOD, "stages": [*GROUPED, {"stage": "duplicates", "resources": {"batch_size": 8}}]}, "part_rows sets"),
        (with_stage(keep={"max": 0.5}), "aspect_ratio runs from 1 to inf"),
        (with_stage(keep={"max_sides": 5}), "unknown rule 'max_sides'; did you mean 'max_side'"),
        (with_stage(keep=[1]), r"stages\[0\] \(aspect_ratio\): keep: must be a mapping"),
        ({**GOOD, "stages": GOOD["stages"] * 2}, "aspect_ratio comes a second time; remove one of the two$"),
        (TWICE, "conse_text comes a second time; give one of the two a name of its own, as in `as: conse_text_2`"),
        (with_stage(**{"as": "index"}), r"\(aspect_ratio\): as: give a name of lower-case letters, .*other than index"),
        (with_stage(**{"as": "../x"}), "as: give a name of lower-case letters"),
        (with_stage(**{"as": 3}), "as: give a name of lower-case letters"),
        (
            {**GOOD, "stages": [{"stage": "conse"}, *with_stage(**{"as": "conse"})["stages"]]},
            r"stages\[1\] \(aspect_ratio\): conse comes a second time; give one of the two",
        ),
        (
            {**GOOD, "stages": [*GOOD["stages"], *with_stage(**{"as": "sizes"})["stages"]]},
            "aspect_ratio writes aspect_ratio, a column of the index or of an earlier stage",
        ),
    ],
)
def test_invalid_recipe_is_refused(recipe: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(recipe, "r.yaml")


def test_resolved_recipe_is_a_recipe_and_resolves_to_itself(tmp_path: Path) -> None:
    first = parse_recipe(GOOD, "r.yaml").resolved()
    stored = tmp_path / "recipe.yaml"
    stored.write_text(yaml.safe_dump(first))
    assert load_recipe(str(stored)).resolved() == first
    assert first["stages"][0]["keep"] == {"max_aspect_ratio": 2.5, "min_side": 200}


def test_class_by_path_resolves_to_its_name_and_path() -> None:
    rules = {"keep": {"max_aspect_ratio": 2.5}}
    first = parse_recipe({**GOOD, "stages": [{"stage": f"{HERE}:Doubled", **rules}]}, "r.yaml").resolved()
    (entry,) = first["stages"]
    assert (entry["stage"], entry["class"], entry["table"][:8]) == ("doubled", f"{HERE}:Doubled", "doubled-")
    assert parse_recipe(first, "r.yaml").resolved() == first


def test_class_by_path_with_a_builtin_name_has_another_table() -> None:
    """Else it would take over rows that our class computed."""
    ours = parse_recipe(GOOD, "r.yaml").steps[0]
    theirs = parse_recipe(with_stage(stage=f"{HERE}:Impostor"), "r.yaml").steps[0]
    assert ours.stage.name == theirs.stage.name == "aspect_ratio"
    assert ours.table != theirs.table


def test_name_of_a_step_is_stored_and_changes_no_table() -> None:
    plain = parse_recipe(GOOD, "r.yaml")
    named = parse_recipe(with_stage(**{"as": "sizes"}), "r.yaml")
    assert ([step.name for step in plain.steps], [step.name for step in named.steps]) == (["aspect_ratio"], ["sizes"])
    assert named.steps[0].table == plain.steps[0].table
    (entry,) = named.resolved()["stages"]
    assert (entry["stage"], entry["as"]) == ("aspect_ratio", "sizes")
    assert parse_recipe(named.resolved(), "r.yaml").resolved() == named.resolved()
    assert parse_recipe(with_stage(**{"as": "aspect_ratio"}), "r.yaml").resolved() == plain.resolved()


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


@pytest.mark.parametrize("name", ["vl3syn7m", "demo"])
def test_recipe_drops_unsafe_images_before_they_are_captioned(name: str) -> None:
    steps = load_recipe(f"recipes/{name}.yaml").steps
    names = [step.stage.name for step in steps]
    captioner = "short_caption" if "short_caption" in names else "describe"
    assert names.index("nsfw") < names.index(captioner)
    (rule,) = steps[names.index("nsfw")].rules
    rows = pl.DataFrame({"id": [1, 2, 3], "nsfw": [0.03, 0.93, None]}, schema_overrides={"nsfw": pl.Float32})
    assert rule.passes(rows).to_list() == [True, False, False]


def test_rule_after_a_download_names_what_was_downloaded() -> None:
    def recipe(keep: dict[str, int]) -> dict[str, Any]:
        return {"pool": {"urls": "list.csv"}, "stages": [{"stage": "download"}, {"stage": "quality", "keep": keep}]}

    parse_recipe(recipe({"min_image_side": 200}), "r.yaml")
    with pytest.raises(UserError, match=r"keep: width is what the list says: name .* image_width"):
        parse_recipe(recipe({"min_width": 200}), "r.yaml")


def test_missing_or_broken_recipe_file_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such recipe"):
        load_recipe(str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("stages: [")
    with pytest.raises(ValueError, match="not YAML") as refused:
        load_recipe(str(broken))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("stages", "publish", "message"),
    [
        ("[{stage: aspect_ratio}]", "{}", "no stage writes short or detailed captions; add short_caption"),
        (
            "[{stage: aspect_ratio}]",
            "{subsets: [short]}",
            "no stage writes short captions; add the stage short_caption",
        ),
        (
            "[{stage: short_caption, model: m, engine: {kind: server, url: 'http://x/v1'}}]",
            "{subsets: [detailed]}",
            "no stage writes detailed",
        ),
        (
            "[{stage: short_caption, model: m, engine: {kind: server, url: 'http://x/v1'}}]",
            "{subsets: [short, ocr]}",
            "the subset ocr needs the stages ocr and short_caption",
        ),
    ],
)
def test_publishing_captions_of_no_stage_is_refused(tmp_path: Path, stages: str, publish: str, message: str) -> None:
    """Before anything runs: hours later there would be nothing to publish."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"pool: {{images: pool}}\nstages: {stages}\npublish: {publish}\n")
    with pytest.raises(UserError, match=f"r.yaml: publish: {message}"):
        load_recipe(str(recipe))


@pytest.mark.parametrize("order", ["lowest_duplicate_similarity", "highest_phash_distance"])
@pytest.mark.parametrize("own", [True, False], ids=["own stage", "later stage"])
def test_order_by_a_fact_about_two_images_is_refused(tmp_path: Path, order: str, own: bool) -> None:
    """It is not computed again when the other image leaves: the choice would be that of an earlier threshold."""

    def load(order: str) -> None:
        keep = {"per_group_cluster": 1, "order": order}
        last = (
            [{"stage": "duplicates", "keep": keep}]
            if own
            else [{"stage": "duplicates"}, {"stage": "host", "keep": keep}]
        )
        path = tmp_path / "r.yaml"
        path.write_text(yaml.safe_dump({**GOOD, "stages": [*GROUPED, *last]}))
        load_recipe(str(path))

    load("highest_width")
    step = "duplicates" if own else "host"
    with pytest.raises(UserError, match=f"r.yaml: {step}: keep: order: {order} goes by .* two images") as refused:
        load(order)
    assert "\n" not in str(refused.value)
