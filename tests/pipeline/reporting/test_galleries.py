"""Galleries show the images that they name: best, worst, borderline; duplicates; groups; captions; errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from manifests import Run
from pipeline.reporting.galleries import Gallery, GalleryGroup, galleries
from tests.stored_facts import ids_of, store_run

MakeImages = Callable[..., Path]
COUNT = 40
KEYS = [f"{number:06d}.jpg" for number in range(COUNT)]


@pytest.fixture
def pool(tmp_path: Path, make_images: MakeImages) -> Path:
    return make_images(tmp_path / "pool", COUNT)


def stored(tmp_path: Path, stages: list[dict[str, Any]], facts: dict[str, Any]) -> Run:
    return store_run(
        tmp_path / "run", {"name": "t", "pool": {"images": str(tmp_path / "pool")}, "stages": stages}, facts
    )


def numbers(gallery: Gallery) -> list[int]:
    return [int(tile.key[:6]) for tile in gallery.tiles]


def by_title(group: GalleryGroup) -> dict[str, list[int]]:
    return {gallery.title: numbers(gallery) for gallery in group.galleries}


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("kind", ["min", "max", "top"])
def test_rule_shows_the_best_worst_and_borderline(tmp_path: Path, kind: str) -> None:
    sign = -1 if kind == "max" else 1
    facts = {key: {"quality": 0.5 + sign * (number - 20) / 100} for number, key in enumerate(KEYS)}
    stage = {"stage": "quality", "keep": {kind: {"min": 0.5, "max": 0.5, "top": 0.5}[kind]}}
    (group,) = galleries(stored(tmp_path, [stage], {"quality": facts})).rules
    assert by_title(group) == {
        "Best": [39, 38, 37, 36, 35, 34],
        "Borderline, kept": [20, 21, 22, 23, 24, 25],
        "Borderline, dropped": [19, 18, 17, 16, 15, 14],
        "Worst": [0, 1, 2, 3, 4, 5],
    }
    assert (group.stage, group.rule) == ("quality", f"{kind}_quality")
    assert group.note.startswith("20 of 40 images pass; dropped if quality ")
    for gallery in group.galleries:
        for tile in gallery.tiles:
            assert (tile.status, bool(tile.reason)) == (
                ("kept", False) if int(tile.key[:6]) >= 20 else ("dropped", True)
            )
            assert dict(tile.values).keys() == {"quality"}
            assert tile.thumbnail.uri


@pytest.mark.usefixtures("pool")
def test_rule_shows_only_rows_that_reached_it(tmp_path: Path) -> None:
    """Of the first rule's column the second stage drops the rest; facts of rows that left earlier do not count."""
    ratios = {key: {"aspect_ratio": 1 + number / 10, "side": 30, "pixels": 900} for number, key in enumerate(KEYS)}
    scores = {key: {"quality": number / 100} for number, key in enumerate(KEYS[:30])} | {KEYS[12]: "undecodable: x"}
    stages = [{"stage": "aspect_ratio", "keep": {"max": 2.95}}, {"stage": "quality", "keep": {"min": 0.1}}]
    made = galleries(stored(tmp_path, stages, {"aspect_ratio": ratios, "quality": scores}))
    ratio, quality = map(by_title, made.rules)
    assert ratio["Best"] == [0, 1, 2, 3, 4, 5]
    assert ratio["Worst"] == [39, 38, 37, 36, 35, 34]
    assert quality == {
        "Borderline, kept": [10, 11, 13, 14, 15, 16],
        "Best": [19, 18, 17],
        "Borderline, dropped": [9, 8, 7, 6, 5, 4],
        "Worst": [0, 1, 2, 3],
    }
    (errors,) = made.errors
    assert (errors.stage, errors.galleries[0].tiles[0].label, numbers(errors.galleries[0])) == (
        "quality",
        "1 × undecodable",
        [12],
    )


@pytest.mark.usefixtures("pool")
def test_duplicates_stand_next_to_what_they_duplicate(tmp_path: Path) -> None:
    stages: list[dict[str, Any]] = [{"stage": "conse"}, {"stage": "hashes"}, {"stage": "clusters", "clusters": 2}]
    stages += [{"stage": "duplicates", "keep": {"min_phash_distance": 11, "per_group_cluster": 10, "order": "closest"}}]
    run = stored(tmp_path, stages, {})
    ids = ids_of(run)
    copies = {5: (0, 2), 6: (0, 4), 7: (0, 3), 8: (0, 6), 30: (20, 9)}
    facts: dict[str, Any] = {"conse": {}, "hashes": {}, "clusters": {}, "duplicates": {}}
    for number, key in enumerate(KEYS):
        facts["conse"][key] = {"label": "x", "label_probability": 0.5}
        facts["hashes"][key] = {"phash": number, "content_hash": number // 2 if number > 35 else 100 + number}
        facts["clusters"][key] = {"cluster": number % 2, "distance": number / 100}
        of, distance = copies.get(number, (None, 64))
        reference = {"phash_duplicate_of": None if of is None else ids[KEYS[of]]}
        facts["duplicates"][key] = {"duplicate_similarity": 0.5, "phash_distance": distance, **reference}
    made = galleries(store_run(tmp_path / "other", recipe_of(tmp_path, stages), facts))
    (pairs,) = made.duplicates
    assert [numbers(gallery) for gallery in pairs.galleries] == [[0, 8, 6, 7], [20, 30]]
    assert [tile.label for tile in pairs.galleries[1].tiles] == ["original", "duplicate"]
    assert pairs.note == "Duplicates: 5, of 2 images; dropped if phash_distance < 11."
    (clusters,) = made.groups
    titles = [gallery.title for gallery in clusters.galleries]
    assert titles == ["cluster 1: 10 of 18 kept", "cluster 0: 10 of 17 kept"]
    for gallery in clusters.galleries:
        assert [tile.status for tile in gallery.tiles] == ["kept"] * 4 + ["dropped"] * 4


def recipe_of(tmp_path: Path, stages: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": "t", "pool": {"images": str(tmp_path / "pool")}, "stages": stages}


@pytest.mark.usefixtures("pool")
def test_identical_files_are_duplicates_by_their_hash(tmp_path: Path) -> None:
    facts = {key: {"phash": 1, "content_hash": max(number, 37)} for number, key in enumerate(KEYS)}
    stages = [{"stage": "hashes", "keep": {"per_group_content_hash": 1}}]
    made = galleries(stored(tmp_path, stages, {"hashes": facts}))
    assert made.groups == ()
    (group,) = made.duplicates
    (gallery,) = group.galleries
    assert gallery.title == "content_hash 37: 1 of 38 kept"
    assert [tile.status for tile in gallery.tiles] == ["kept"] + ["dropped"] * 4


@pytest.mark.usefixtures("pool")
def test_captions_are_the_longest_shortest_and_flagged(tmp_path: Path) -> None:
    engine = {"kind": "server", "url": "http://127.0.0.1:1"}
    stage = {"stage": "short_caption", "model": "m", "engine": engine}
    facts: dict[str, Any] = {}
    for number, key in enumerate(KEYS):
        facts[key] = {"short_caption": f"Caption {number}", "short_words": number, "short_language": 0.9}
        facts[key] |= {
            "short_cut": int(number == 7),
            "short_refused": 0,
            "short_repetition": 0.9 if number < 2 else 0.0,
        }
    facts[KEYS[9]] = "server: 500 x"
    (group,) = galleries(stored(tmp_path, [stage], {"short_caption": facts})).captions
    shown = by_title(group)
    assert len(shown.pop("At random")) == 3
    assert shown == {
        "Longest": [39, 38, 37],
        "Shortest": [0, 1, 2],
        "Flagged: short_cut (1)": [7],
        "Flagged: short_repetition (2)": sorted([0, 1], key=lambda n: ids_of_run(tmp_path)[KEYS[n]]),
    }
    assert dict(group.galleries[0].tiles[0].texts) == {"short_caption": "Caption 39"}
    assert group.galleries[0].tiles[0].alt == "000039.jpg: Caption 39"


def ids_of_run(tmp_path: Path) -> dict[str, int]:
    from manifests import open_run

    return ids_of(open_run(str(tmp_path / "run")))


def test_errors_of_the_index_have_one_example_each(tmp_path: Path, pool: Path) -> None:
    for name in ("x.jpg", "y.jpg", "z.jpg"):
        (pool / name).write_bytes(b"no image" if name < "z" else b"")
    (group,) = galleries(stored(tmp_path, [], {})).errors
    assert [tile.label for tile in group.galleries[0].tiles] == ["2 × not an image", "1 × empty"]
    assert all(tile.status == "error" and tile.thumbnail.reason for tile in group.galleries[0].tiles)


@pytest.mark.usefixtures("pool")
def test_facts_of_images_that_are_gone_are_not_shown(tmp_path: Path) -> None:
    """A shard that changed has new ids, and the facts of the old ones stay stored."""
    facts = {key: {"quality": number / 100} for number, key in enumerate(KEYS)}
    run = stored(tmp_path, [{"stage": "quality", "keep": {"min": 0.2}}], {"quality": facts})
    index = run.index.scan().collect().to_arrow().cast(run.index.schema)
    changed = index.filter(pc.equal(index["key"], KEYS[39])).set_column(0, "id", pa.array([17]))
    run.index.append(changed, run.index.next_writer(), {"reader": 3})
    (group,) = galleries(run).rules
    assert {title: numbers[0] for title, numbers in by_title(group).items()} == {
        "Best": 38,
        "Borderline, kept": 20,
        "Borderline, dropped": 19,
        "Worst": 0,
    }
    assert group.note.startswith("19 of 39 images pass")


def test_run_of_an_index_only_has_no_galleries(tmp_path: Path, pool: Path) -> None:
    made = galleries(stored(tmp_path, [], {}))
    assert (made.rules, made.duplicates, made.groups, made.captions, made.errors) == ((), (), (), (), ())
