"""What the commands make of a run's rules, mostly over a run without images: nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from core.errors import UserError
from manifests import open_run
from pipeline.recipe import load_recipe, parse_recipe
from tests.runs import run_here

Rules = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    """Run a command; the rules of each stage afterwards, in order."""
    from pipeline.commands.app import app

    stages = [{"stage": "conse"}, {"stage": "clusters", "clusters": 5}]
    recipe = parse_recipe({"pool": {"images": str(tmp_path / "pool")}, "stages": stages}, "test").resolved()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    index = open_run(tmp_path).index
    index.append(index.schema.empty_table(), index.next_writer(), {})

    def call(*arguments: object) -> dict[str, dict[str, Any]]:
        app([*map(str, arguments), "--run", str(tmp_path)], standalone_mode=False)
        return {entry["stage"]: entry["keep"] for entry in open_run(tmp_path).recipe["stages"]}

    return call


def test_threshold_added_later_precedes_the_balance(rules: Rules) -> None:
    rules("dedup", "--per-group", 4)
    after = rules("dedup", "--max-similarity", 0.9)["duplicates"]
    assert list(after) == ["max_duplicate_similarity", "per_group_cluster", "order", "seed"]
    assert rules("dedup", "--per-group", 3)["duplicates"] == {**after, "per_group_cluster": 3}


def test_moved_balance_keeps_its_order(rules: Rules) -> None:
    rules("cluster", "--per-group", 5, "--order", "closest")
    after = rules("dedup", "--per-group", 4)
    assert after["clusters"] == {}
    assert after["duplicates"] == {"per_group_cluster": 4, "order": "closest", "seed": 0}


def test_exact_copies_are_dropped_unless_turned_off(rules: Rules) -> None:
    assert "per_group_content_hash" in rules("filter", "hashes")["hashes"]
    assert rules("dedup", "--no-exact")["hashes"] == {}
    assert rules("dedup")["hashes"] == rules("filter", "hashes")["hashes"] == {}
    assert "per_group_content_hash" in rules("dedup", "--exact")["hashes"]


def test_order_without_a_balance_is_refused(rules: Rules) -> None:
    with pytest.raises(ValueError, match="order and seed are about per_group and total"):
        rules("cluster", "--order", "closest")


@pytest.mark.parametrize("order", ["lowest_duplicate_similarity", "highest_phash_distance"])
def test_order_by_pairs_is_refused_and_changes_nothing(tmp_path: Path, rules: Rules, order: str) -> None:
    before = (tmp_path / "recipe.yaml").read_text()
    with pytest.raises(UserError, match=f"duplicates: keep: order: {order} goes by a fact about two images"):
        rules("dedup", "--per-group", 4, "--order", order)
    assert (tmp_path / "recipe.yaml").read_text() == before


@pytest.mark.usefixtures("here")
def test_run_that_has_an_order_by_pairs_opens(tmp_path: Path) -> None:
    """As earlier versions made it: only a new run of its recipe is refused."""
    from pipeline.commands.app import app

    (tmp_path / "pool").mkdir()
    for seed, size in ((1, 200), (1, 180), (2, 160)):  # two copies and another image
        pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((size, size)).save(tmp_path / "pool" / f"{size}.png")
    keep = {"per_group_format": 2, "order": "highest_phash_distance"}
    duplicates = {"stage": "duplicates", "within": "format", "by": ["perceptual"], "keep": keep}
    recipe = {"pool": {"images": str(tmp_path / "pool")}, "stages": [{"stage": "hashes"}, duplicates]}
    run, _ = run_here(recipe, tmp_path / "run")
    kept = run.manifest(["key", "status"]).collect().sort("key")["status"].to_list()
    assert kept == ["kept", "dropped", "kept"]
    app(["filter", "quality", "--run", run.url], standalone_mode=False)
    after = open_run(run.url)
    assert [entry["stage"] for entry in after.recipe["stages"]] == ["hashes", "duplicates", "quality"]
    assert after.funnel().survivors == 2
    with pytest.raises(UserError, match=r"recipe.yaml: duplicates: keep: order: .* two images"):
        load_recipe(f"{run.url}/recipe.yaml")


@pytest.mark.parametrize("command", [("cluster",), ("filter", "aesthetic")])
def test_other_encoder_than_that_of_the_run_is_refused(rules: Rules, command: tuple[str, ...]) -> None:
    """The run's embeddings would be used, whatever the option says."""
    with pytest.raises(UserError, match=r"has embeddings by conse, .* instead of --encoder ViT-B-32/openai"):
        rules(*command, "--encoder", "ViT-B-32/openai")
    assert "clusters" in rules("cluster", "--encoder", "conse")


def test_commands_find_stages_under_their_names_in_the_recipe(tmp_path: Path, rules: Rules) -> None:
    written = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    for entry, name in zip(written["stages"], ("embeddings", "themes"), strict=True):
        entry["as"] = name
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    rules("cluster", "--per-group", 5)
    rules("dedup", "--per-group", 4)
    stages = open_run(tmp_path).recipe["stages"]
    assert [entry.get("as", entry["stage"]) for entry in stages] == ["embeddings", "themes", "hashes", "duplicates"]
    assert (stages[1]["keep"], stages[3]["keep"]["per_group_cluster"]) == ({}, 4)


def test_step_must_be_named_if_a_stage_stands_twice(tmp_path: Path, rules: Rules) -> None:
    rules("filter", "similarity", "--texts", "alt_text", "--as", "first")
    rules("filter", "similarity", "--texts", "license", "--as", "second", "--min", 0.1)
    with pytest.raises(UserError, match="similarity several times, as first and second: say which, as in --as first"):
        rules("filter", "similarity", "--min", 0.2)
    rules("filter", "similarity", "--min", 0.2, "--as", "first")
    stages = open_run(tmp_path).recipe["stages"]
    assert [(entry.get("as", entry["stage"]), entry.get("texts"), entry["keep"]) for entry in stages[2:]] == [
        ("conse_text", ["alt_text"], {}),
        ("first", ["alt_text"], {"min_alt_similarity": 0.2}),
        ("second_texts", ["license"], {}),
        ("second", ["license"], {"min_license_similarity": 0.1}),
    ]
    with pytest.raises(UserError, match="compares with license already: give --as and a new name"):
        rules("filter", "similarity", "--texts", "alt_text", "--as", "second")


def test_rules_keep_what_a_stage_was_trained_as(tmp_path: Path) -> None:
    """A recipe may name the artifact of a stage; only other settings need another one."""
    from pipeline.commands.stage import with_stages

    stages = [{"stage": "conse"}, {"stage": "clusters", "clusters": 5, "fitted": "0123456789abcdef"}]
    written = {"pool": {"images": str(tmp_path)}, "stages": stages}
    for entry, fitted in (
        ({"keep": {"per_group_cluster": 4}}, "0123456789abcdef"),
        ({"clusters": 5, "seed": None}, "0123456789abcdef"),
        ({"clusters": 6}, None),
    ):
        recipe, _ = with_stages(written, [{"stage": "clusters", **entry}], "run")
        assert recipe.resolved()["stages"][1]["fitted"] == fitted


@pytest.mark.parametrize("error", [UserError("500 clusters"), KeyError("500 clusters"), OSError("500 clusters")])
def test_error_during_a_stage_leaves_the_recipe_unchanged(
    tmp_path: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Else all rows would wait for that stage, and later commands had nothing to compute."""

    def fail(*_: object, **__: object) -> None:
        raise error

    before = (tmp_path / "recipe.yaml").read_text()
    monkeypatch.setattr("pipeline.execution.runner.run_stages", fail)
    with pytest.raises(type(error), match="500 clusters"):
        rules("cluster", "--clusters", 500)
    assert (tmp_path / "recipe.yaml").read_text() == before
