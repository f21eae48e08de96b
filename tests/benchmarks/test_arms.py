"""Training on curated against random: scenes and their defects are known, intervals are right, the table tells them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from evidence import train_arms
from evidence.arms import pool, table
from evidence.arms.curation import ARMS, composition, read_truth, recipe_of
from evidence.arms.cut_outs import NAMES, Materials
from evidence.arms.evaluation import caption_losses
from evidence.arms.scenes import (
    GROUNDS,
    INCOMPLETE,
    PHOTOGRAPH,
    SIDE,
    Scene,
    caption,
    draw,
    frequencies,
    incomplete_captions,
    random_scene,
)
from evidence.arms.statistics import Interval, difference, effective_number, interval, mean_rank
from evidence.arms.steps import Steps, read_json
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ROWS = 400
BEGIN, END = table.marks("arms")


@pytest.fixture(scope="module")
def materials() -> Materials:
    """A coloured square for each object, and a photograph of noise: no package is fetched."""
    colours = [(number * 12, 255 - number * 12, 90, 255) for number in range(len(NAMES))]
    objects = {name: Image.new("RGBA", (40, 30), colour) for name, colour in zip(NAMES, colours, strict=True)}
    return Materials(objects, [Image.effect_noise((224, 224), 60).convert("RGB")])


@pytest.fixture(scope="module")
def raw(materials: Materials) -> list[pool.Row]:
    return pool.raw_rows(ROWS, 3, materials)


def test_scene_and_caption_say_the_same(materials: Materials) -> None:
    scene = Scene(("owl", "orange"), "grey")
    assert caption(scene) == "An owl on the left and an orange on the right, on a grey ground."
    assert caption(Scene(("teapot",), PHOTOGRAPH)) == "A teapot, on a photograph."
    picture = draw(scene, Random(0), materials)
    assert picture.size == (SIDE, SIDE)
    assert picture.getpixel((28, 56)) == materials.objects["owl"].getpixel((9, 9))[:3]
    assert picture.getpixel((84, 56)) == materials.objects["orange"].getpixel((9, 9))[:3]
    assert picture.getpixel((0, 0)) == GROUNDS["grey"]


def test_objects_of_a_scene_follow_their_weights() -> None:
    random, names = Random(0), list(NAMES)
    scenes = [random_scene(names, frequencies(names, 1.3), random) for _ in range(2000)]
    counts = Counter(name for scene in scenes for name in scene.objects)
    assert counts[names[0]] > 4 * counts[names[4]] > 8 * counts[names[15]] > 0
    assert all(len(set(scene.objects)) == len(scene.objects) for scene in scenes)


def test_raw_pool_has_exactly_the_known_shares(raw: list[pool.Row]) -> None:
    counts = Counter(row.defect for row in raw)
    assert {defect: counts[defect] for defect in pool.SHARES} == {d: round(s * ROWS) for d, s in pool.SHARES.items()}
    assert counts[pool.CLEAN] == ROWS - sum(round(share * ROWS) for share in pool.SHARES.values())


def test_raw_pool_is_a_function_of_its_seed(raw: list[pool.Row], materials: Materials) -> None:
    assert pool.raw_rows(ROWS, 3, materials) == raw
    assert pool.raw_rows(ROWS, 4, materials) != raw


def test_alt_text_is_wrong_only_where_the_defect_says_so(raw: list[pool.Row]) -> None:
    said: dict[str, set[bool]] = {defect: set() for defect in (pool.CLEAN, *pool.SHARES)}
    for row in raw:
        said[row.defect].add(row.alt_text in (caption(row.scene), *incomplete_captions(row.scene)))
    assert said == {defect: {defect not in ("wrong caption", "boilerplate")} for defect in said}


def test_most_alt_texts_name_one_object_and_nothing_else(raw: list[pool.Row]) -> None:
    assert incomplete_captions(Scene(("owl", "cow"), "grey")) == ["An owl.", "A cow."]
    clean = [row for row in raw if row.defect == pool.CLEAN]
    share = sum(row.alt_text in incomplete_captions(row.scene) for row in clean) / len(clean)
    assert share == pytest.approx(INCOMPLETE, abs=3 * (0.25 / len(clean)) ** 0.5)


def test_near_duplicate_shows_the_scene_of_a_clean_row(raw: list[pool.Row]) -> None:
    copies = [row for row in raw if row.defect == "near-duplicate"]
    assert all(raw[row.original].scene == row.scene and raw[row.original].defect == pool.CLEAN for row in copies)
    assert {row.original for row in raw} == {-1, *(row.original for row in copies)}
    assert len({row.original for row in copies}) == round(pool.COPIED * ROWS)


def test_tiny_images_are_those_below_the_filters_side(raw: list[pool.Row]) -> None:
    sides: dict[bool, list[int]] = {True: [], False: []}
    for row in raw:
        sides[row.defect == "tiny"].append(min(Image.open(io.BytesIO(row.image)).size))
    least = recipe_of("filtered", 1, 0)["stages"][0]["keep"]["min_side"]
    assert max(sides[True]) < least <= min(sides[False])


def test_pool_and_truth_have_the_same_ids(raw: list[pool.Row], tmp_path: Path) -> None:
    pool.write_raw(raw, tmp_path)
    rows = pl.read_parquet(tmp_path / "images/*.parquet")
    truth = read_truth(tmp_path)
    assert rows.columns == ["id", "image", "alt_text"]
    assert rows["id"].to_list() == sorted(truth) == list(range(ROWS))
    chosen = dict(rows.select("id", "alt_text").iter_rows())
    seen = composition(chosen, truth)
    assert seen["defects"] == pytest.approx(pool.SHARES)
    assert seen["right captions"] == pytest.approx(1 - pool.SHARES["wrong caption"] - pool.SHARES["boilerplate"])
    assert seen["distinct scenes"] == pytest.approx(1 - pool.SHARES["near-duplicate"])


def test_composition_tells_complete_right_and_wrong_captions() -> None:
    true = {"caption": "An owl, on a grey ground.", "incomplete": ["An owl."], "objects": ["owl"], "original": -1}
    truth = {number: {**true, "id": number, "defect": ""} for number in range(4)}
    said = ["An owl, on a grey ground.", "An owl.", "A cow.", "Click to enlarge"]
    seen = composition(dict(enumerate(said)), truth)
    assert (seen["right captions"], seen["complete captions"]) == (0.5, 0.25)


def test_interval_is_that_of_students_t() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3
    assert found.half == pytest.approx(2.7764451 * 2.5**0.5 / 5**0.5)
    assert interval([0.25]) == Interval(0.25, None)
    with pytest.raises(ValueError, match="no mean"):
        interval([0.1, float("nan")])


def test_difference_is_taken_seed_by_seed() -> None:
    found = difference([1.1, 5.1, 9.1], [1.0, 5.0, 9.0])
    assert found.mean == pytest.approx(0.1)
    assert found.half == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="longer"):
        difference([1.0], [1.0, 2.0])


def test_mean_rank_counts_lower_losses_and_halves_of_ties() -> None:
    assert mean_rank([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]) == 2
    assert mean_rank([[1.0, 1.0, 1.0]] * 3) == 2
    assert mean_rank([[0.1, 0.9], [0.9, 0.1]]) == 1


def test_effective_number_of_equal_counts_is_their_number() -> None:
    assert effective_number([7, 7, 7, 0]) == pytest.approx(3)
    assert effective_number([1000, 1]) == pytest.approx(1.008, abs=1e-3)


def test_losses_of_captions_on_images_are_the_models_own(materials: Materials, tmp_path: Path) -> None:
    """The same as `compute_loss` of each picture with each caption, though the picture is encoded once."""
    import torch

    from model.answer_loss import compute_loss
    from model.config import preset
    from model.processor import Processor
    from model.training.data.samples import Sample
    from model.videollama3 import VideoLLaMA3

    torch.manual_seed(0)
    model, processor = VideoLLaMA3(preset("tiny")), Processor.tiny()
    for parameter in model.parameters():  # new weights are small: all losses would be alike
        parameter.data.mul_(3)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    pool.write_annotated(pool.clean_scenes(3, "test", 0, materials), tmp_path)
    found = caption_losses(tmp_path / "model", tmp_path / "annotations.jsonl")

    lines = list(map(json.loads, (tmp_path / "annotations.jsonl").read_text().splitlines()))
    question = lines[0]["conversations"][0]["value"].removeprefix("<image>\n")
    for row, seen in zip(found, lines, strict=True):
        image = {"type": "image", "image": str(tmp_path / seen["image"])}
        asked = {"role": "user", "content": [image, {"type": "text", "text": question}]}
        answers = [{"role": "assistant", "content": line["conversations"][1]["value"]} for line in lines]
        own = [compute_loss(model, processor, [Sample("a", [asked, answer])]).mean for answer in answers]
        assert row == pytest.approx(own, abs=1e-4)
    assert len({round(loss, 3) for row in found for loss in row}) > 3, "images make no difference"


def scored(loss: float) -> dict[str, Any]:
    known = {"right captions": 0.65, "complete captions": 0.2, "distinct scenes": 0.9, "effective objects": 17.26}
    return {"loss": loss, "shuffled": 1.5, "rank": 12.0, **known}


RESULTS: dict[str, Any] = {
    "command": "python benchmarks/evidence/train_arms.py --work build/arms",
    "date": "2026-11-30",
    "machine": "a machine",
    "settings": {"scenes": 8000, "images": 1600, "steps": 900, "tokens": 768, "held_out": 400},
    "defects": {"blurred": 0.06},
    "incomplete": 0.7,
    "among": 100,
    "arms": {"random": [scored(0.5), scored(0.7)], "filtered": [scored(0.4), scored(0.6)]},
}


def test_table_has_means_intervals_and_differences() -> None:
    *_, first, second = table.table(RESULTS).splitlines()
    assert first == ("| a: random, alt texts | 0.600 ± 1.271 | – | 1.50 ± 0.00 | 12.0 ± 0.0 | 65% | 20% | 90% | 17.3 |")
    assert second.startswith("| b: filtered | 0.500 ± 1.271 | −0.100 ± 0.000 |")


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([[0.5, 0.6], [0.4, 0.5]], "above it: b lower; with a: b lower."),
        ([[0.4, 0.5], [0.5, 0.6]], "above it: b higher; with a: b higher."),
        ([[0.5, 0.6], [0.4, 0.7]], "with a: b not told apart. Where the interval"),
        ([[0.5], [0.4]], "One seed has no interval"),
    ],
    ids=["lower", "higher", "not told apart", "one seed"],
)
def test_statement_says_what_the_intervals_show(losses: list[list[float]], said: str) -> None:
    arms = {arm: [scored(loss) for loss in seeds] for arm, seeds in zip(("random", "filtered"), losses, strict=True)}
    assert said in table.statement(arms)


def test_document_has_the_section_of_the_stored_results() -> None:
    begin, end = table.marks("arms")
    page = (ROOT / "docs/evidence.md").read_text()
    assert page.split(begin)[1].split(end)[0].strip() == table.section(read_json(train_arms.STORED))


def test_page_keeps_all_but_what_is_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "evidence.md"
    table.write_page(page, "first")
    page.write_text("Before\n" + page.read_text() + "after\n")
    table.write_page(page, table.section(RESULTS))
    text = page.read_text()
    assert text.startswith("Before\n# Evidence\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "first" not in text
    assert text.count(BEGIN) == 1
    assert "2 seeds, each with a raw pool of 8,000 scenes" in text
    assert "6% are blurred. Objects" in text


def test_page_with_one_mark_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "evidence.md"
    page.write_text(f"{BEGIN}\n")
    with pytest.raises(SystemExit, match="only one of the marks"):
        table.write_page(page, "text")
    assert page.read_text() == f"{BEGIN}\n"


def test_step_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    calls: list[int] = []
    steps = Steps(tmp_path)
    first = steps.run("pool", lambda: {"rows": calls.append(1) or 7})
    assert first == steps.run("pool", lambda: {"rows": calls.append(1) or 8})
    assert first["rows"] == 7
    assert calls == [1]


def test_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    Steps(tmp_path).claim({"steps": 60})
    Steps(tmp_path).claim({"steps": 60})
    with pytest.raises(SystemExit, match="begun with steps 60, not 900"):
        Steps(tmp_path).claim({"steps": 900})


@pytest.mark.parametrize("arm", ARMS)
def test_recipe_of_each_arm_keeps_as_many_images(arm: str) -> None:
    kept = [rule for stage in recipe_of(arm, 123, 4)["stages"] for rule in stage.get("keep", {}).items()]
    assert [number for name, number in kept if name.startswith("total_")] == [123]
    assert ("seed", 4) in kept


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="the cut-outs are a Debian package")
def test_tiny_experiment_runs_from_pool_to_table(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "benchmarks/evidence/train_arms.py"), "--work", str(tmp_path / "w"), "--tiny"]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run([*program, "--seeds", "2"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "w/results.json").read_text())
    assert {arm: len(seeds) for arm, seeds in results["arms"].items()} == dict.fromkeys(ARMS, 2)
    assert all(label in done.stdout for label in table.LABELS.values())
    again = subprocess.run([*program, "--seeds", "2"], capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done before") == len(list((tmp_path / "w/steps").iterdir()))
    assert again.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-1]
