"""Planted defects: what each rule finds of a small pool is known, and the page is what the stored results give."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from evidence import planted_rules, planted_table
from evidence.planted import RECIPE, facts_recipe
from evidence.planted_pool import CHANGES, COPIES, DRAWN, EMPTY_TEXT, SOUND, TEXT, WRONG_TEXT, Entry, make, pieces
from planted_copies import as_jpeg

from tests.runs import run_here

ROOT = Path(__file__).parents[2]
SOUND_PIECES, EACH = 12, 2
TEXTS = {
    "astronaut.png": "a photo of an astronaut",
    "coffee.png": "a photo of a cup",
    "rocket.jpg": "a photo of a rocket",
}
STAGES = [
    {"stage": "aspect_ratio", "keep": {"max": 2.5, "min_side": 200}},
    {"stage": "hashes", "keep": {"per_group_content_hash": 1}},
    {"stage": "duplicates", "within": "format", "by": ["perceptual"], "keep": {"min_phash_distance": 11}},
]
"""What needs no model; one group of all images, which are JPEGs."""


def make_small(folder: Path, photographs: list[Path], seed: int = 0) -> list[Entry]:
    from PIL import Image

    drawn = [as_jpeg(Image.effect_mandelbrot((300, 300), (-2, -1.5, 1, 1.5), 40).convert("RGB"), 90)]
    return make(folder, list(pieces(photographs, TEXTS)), SOUND_PIECES, EACH, drawn, seed)


@pytest.fixture(scope="module")
def judged(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is judged of the small pool."""
    folder = tmp_path_factory.mktemp("planted")
    make_small(folder, photographs, seed=1)  # of exact copies the originals are dropped
    recipe = {"name": "small", "pool": {"parquet": "pool.parquet", "id": "id"}, "stages": STAGES}
    run_here(facts_recipe(recipe, folder / "pool.parquet"), folder / "run")
    return planted_rules.judge(recipe, folder / "run", folder / "planted.json")


def test_rules_find_what_is_planted_for_them(judged: dict[str, Any]) -> None:
    found = {rule["rule"]: rule["found"] for rule in judged["rules"]}
    assert found == {
        "max_aspect_ratio": {"extreme ratio": 2},
        "min_side": {"tiny": 2},
        "per_group_content_hash": {"exact": 2},
        "min_phash_distance": {**dict.fromkeys(COPIES, 2), "mirrored": 0},
    }


def test_rules_drop_nothing_else(judged: dict[str, Any]) -> None:
    counts = [(rule["dropped"], rule["right"], rule["sound"], rule["sound_dropped"]) for rule in judged["rules"]]
    assert counts == [(2, 2, 12, 0), (2, 2, 12, 0), (2, 2, 12, 0), (10, 10, 12, 0)]
    assert {rule["rows"] for rule in judged["rules"]} == {sum(judged["planted"].values())}


def test_defect_that_no_rule_is_for_is_missed(judged: dict[str, Any]) -> None:
    missed = {kind: count for kind, count in judged["missed"].items() if count}
    no_rule = dict.fromkeys(("blurred", "JPEG of quality 10", WRONG_TEXT, EMPTY_TEXT, TEXT, "mirrored"), 2)
    assert missed == {**no_rule, DRAWN: 1}


def test_pool_is_the_same_for_a_seed(photographs: list[Path], tmp_path: Path) -> None:
    entries = [make_small(tmp_path / name, photographs, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert entries[0] == entries[1] != entries[2]
    files = [(tmp_path / name / "pool.parquet").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_list_says_what_each_row_is(photographs: list[Path], tmp_path: Path) -> None:
    entries = make_small(tmp_path, photographs)
    assert [vars(entry) for entry in entries] == json.loads((tmp_path / "planted.json").read_text())
    each = dict.fromkeys((*CHANGES, *COPIES, WRONG_TEXT, EMPTY_TEXT, TEXT), EACH)
    assert Counter(entry.kind for entry in entries) == {SOUND: SOUND_PIECES, DRAWN: 1, **each}
    for entry in entries:
        assert (entry.copy_of is not None) == (entry.kind in COPIES)
        if entry.copy_of is not None:
            assert (entries[entry.copy_of].kind, entries[entry.copy_of].text) == (SOUND, entry.text)
        if entry.kind == WRONG_TEXT:
            assert entry.text in set(TEXTS.values()) - {TEXTS[entry.photograph]}


def test_pool_of_too_few_pieces_is_refused(photographs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few for 2012"):
        make(tmp_path, list(pieces(photographs[:3], TEXTS)), 2000, 2, [], 0)


def test_interval_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert planted_table.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert planted_table.wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert planted_table.wilson(0, 0) == (0, 1)


def test_document_has_the_tables_of_the_stored_results() -> None:
    document = planted_table.DOCUMENT.read_text()
    assert planted_table.written(document, planted_table.stored()) == document


def test_other_results_give_another_document() -> None:
    results = copy.deepcopy(planted_table.stored())
    results["rules"][0]["dropped"] += 1
    document = planted_table.DOCUMENT.read_text()
    assert planted_table.written(document, results) != document
    with pytest.raises(ValueError, match="no <!-- written by"):
        planted_table.written("# Title\n", results)


def test_picture_is_the_same_for_the_same_results() -> None:
    results = planted_table.stored()
    first = planted_table.picture(results)
    assert first == planted_table.picture(results)
    results["rules"][0]["found"]["extreme ratio"] = 0
    assert first != planted_table.picture(results)


def test_thresholds_are_those_of_the_named_recipes() -> None:
    keep = {entry["stage"]: entry.get("keep", {}) for entry in yaml.safe_load(RECIPE.read_text())["stages"]}
    every = [(stage, rule, value) for stage, rules in keep.items() for rule, value in rules.items()]
    every += [(stage, *rule) for stage, rules in planted_rules.OTHER_THRESHOLDS.items() for rule in rules.items()]
    for stage, rule, value in every:
        source = planted_rules.SOURCES.get(f"{stage}.{rule} {value}", "demo.yaml")
        for name in source.split(", ") if source != "ours" else []:
            stages = yaml.safe_load((ROOT / "recipes" / name).read_text())["stages"]
            [rules] = [entry["keep"] for entry in stages if entry["stage"] == stage]
            assert rules[rule] == value, (name, stage, rule)
