"""Ablations: films and shapes are what their captions say, arms see the same samples, the page tells the results."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import av
import pytest
import torch
from evidence import ablations
from evidence.ablation import batches, films, pruning, quota, resolution, section, shapes
from evidence.ablation.lab import Sizes, Study
from evidence.ablation.scores import Scored, summary
from evidence.arms import table
from evidence.arms.cut_outs import NAMES, Materials
from evidence.arms.scenes import GROUNDS, Scene
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def materials() -> Materials:
    """A coloured square for each object, and a photograph of noise: no package is fetched."""
    objects = {name: Image.new("RGBA", (56, 56), (number * 6, 90, 255, 255)) for number, name in enumerate(NAMES)}
    return Materials(objects, [Image.effect_noise((224, 224), 60).convert("RGB")])


@pytest.fixture(scope="module")
def film_folder(materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    films.write_films(6, "test", materials, folder)
    return folder


@pytest.mark.parametrize(
    ("direction", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)
def test_object_moves_where_the_caption_says(materials: Materials, direction: str, axis: int, sign: int) -> None:
    film = films.Film("owl", direction, "grey")
    assert films.caption(film) == f"An owl on a grey ground moves {direction}."
    first, *_, last = films.frames(film, Random(1), materials)
    ground = Image.new("RGB", first.size, GROUNDS["grey"])
    before, after = (ImageChops.difference(one, ground).getbbox() for one in (first, last))
    assert before is not None
    assert after is not None
    moved = [a - b for a, b in zip(after, before, strict=True)]
    assert moved[axis] == moved[axis + 2] == sign * films.TRAVEL
    assert moved[1 - axis] == moved[3 - axis] == 0


def test_first_frame_is_the_same_for_all_directions(materials: Materials, tmp_path: Path) -> None:
    """Also as it is decoded: an encoder that looks ahead would tell by it what comes later."""
    seen = set()
    for to in films.DIRECTIONS:
        films.encode(films.frames(films.Film("owl", to, "grey"), Random(5), materials), tmp_path / f"{to}.mp4", seed=1)
        with av.open(str(tmp_path / f"{to}.mp4")) as container:
            seen.add(next(container.decode(video=0)).to_ndarray(format="rgb24").tobytes())
    assert len(seen) == 1


def test_films_are_sampled_once_a_second(film_folder: Path) -> None:
    assert [len(row.keep_mask) for row in rows_of(film_folder, None)] == [films.SECONDS * 16] * 6


def rows_of(folder: Path, threshold: float | None) -> list[Any]:
    from model.processor import Processor
    from model.processor_config import ProcessorConfig
    from model.prune import Pruning

    config = ProcessorConfig(pruning=None if threshold is None else Pruning(threshold=threshold))
    processor = Processor(Processor.tiny().tokenizer, config)
    lines = map(json.loads, (folder / "annotations.jsonl").read_text().splitlines())
    parts = [{"type": "video", "video": str(folder / line["video"])} for line in lines]
    return [processor([{"role": "user", "content": [part, "?"]}]) for part in parts]


def test_higher_thresholds_keep_less_and_never_the_rest(film_folder: Path) -> None:
    """The grain reaches the decoder: without it, the published threshold would drop what stands still."""
    kept = [
        sum(int(row.keep_mask.sum()) for row in rows_of(film_folder, threshold)) / (6 * films.SECONDS * 16)
        for threshold in pruning.THRESHOLDS.values()
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 1
    assert kept[1] > 0.6
    assert 0.2 < kept[-1] < 0.45


def test_shapes_have_as_many_tokens_as_the_square() -> None:
    tokens = [width * height / 28**2 for width, height in shapes.SHAPES]
    assert all(side % 28 == 0 for shape in shapes.SHAPES for side in shape)
    assert min(tokens) >= 16, "the processor would enlarge it"
    assert sum(tokens) / len(tokens) == (shapes.SQUARE / 28) ** 2


def test_caption_of_a_tall_scene_says_top_and_bottom() -> None:
    scene = Scene(("owl", "cow"), "grey")
    assert shapes.caption_of(scene, (56, 224)) == "An owl at the top and a cow at the bottom, on a grey ground."
    assert shapes.caption_of(scene, (224, 56)) == "An owl on the left and a cow on the right, on a grey ground."


def test_both_resolutions_show_the_same_scenes(materials: Materials, tmp_path: Path) -> None:
    shapes.write_scenes(9, "test", materials, tmp_path)
    any_, fixed = ((tmp_path / way / "annotations.jsonl").read_text() for way in ("any", "fixed"))
    assert any_ == fixed
    for number, line in enumerate(map(json.loads, any_.splitlines())):
        picture = Image.open(tmp_path / "any" / line["image"])
        assert picture.size == shapes.SHAPES[number]
        assert line["shape"] == shapes.kind(picture.size)
        squeezed = Image.open(tmp_path / "fixed" / line["image"])
        assert squeezed.tobytes() == picture.resize((shapes.SQUARE, shapes.SQUARE)).tobytes()


def test_quota_is_the_only_thing_that_recipes_differ_in() -> None:
    recipes = {arm: quota.recipe_of(arm, 77, 5) for arm in quota.QUOTAS}
    kept = {arm: recipe["stages"][1].pop("keep") for arm, recipe in recipes.items()}
    assert kept["none"] == {}
    assert {arm: keep["per_group"] for arm, keep in kept.items() if keep} == {"20": 20, "8": 8}
    assert len({json.dumps(recipe) for recipe in recipes.values()}) == 1
    assert recipes["8"]["stages"][2]["keep"] == {"total_format": 77, "seed": 5}


def test_all_ways_of_batches_have_the_same_loss_and_gradients(materials: Materials, tmp_path: Path) -> None:
    """Also packed by transformers: samples in one row must not see each other."""
    samples = prepared(materials, tmp_path)
    found = {}
    for way, model in models(tmp_path).items():
        out = model(**batches.INPUTS[way](samples)).loss
        out.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        found[way] = (float(out.detach()), float(norm))
    assert found["padded"] == pytest.approx(found["ours"], rel=1e-4)
    assert found["packed"] == pytest.approx(found["ours"], rel=1e-4)


def prepared(materials: Materials, folder: Path) -> list[Any]:
    from model.processor import Processor
    from model.training.data.annotations import AnnotationConfig
    from model.training.data.prepare import prepare

    shapes.write_scenes(5, "test", materials, folder)
    source = AnnotationConfig(annotations=str(folder / "any/annotations.jsonl")).open("test")
    return [prepare(Processor.tiny(), source.sample(row), row, 1024, 4096)[0] for row in range(source.rows)]


def models(folder: Path) -> dict[str, Any]:
    from transformers import VideoLlama3ForConditionalGeneration

    from model.config import preset
    from model.videollama3 import VideoLLaMA3

    torch.manual_seed(0)
    ours = VideoLLaMA3(preset("tiny")).train()
    ours.save_pretrained(folder / "start")
    theirs = [VideoLlama3ForConditionalGeneration.from_pretrained(folder / "start").train() for _ in range(2)]
    return {"ours": ours, "packed": theirs[0], "padded": theirs[1]}


def test_loss_behind_a_word_is_summed_in_each_sample() -> None:
    samples = [
        Scored([9.0, 1.0, 3.0, 2.0], ["An", "then", "a", "cow"], 10, 20, "strip"),
        Scored([5.0, 7.0], ["then", "up"], 20, 20, "square"),
    ]
    found = summary(samples, "then")
    expected = {"loss": 4.5, "visual": 15, "kept": 0.75, "behind": 6.0, "loss of strip": 3.75, "loss of square": 6.0}
    assert found == pytest.approx(expected)
    assert "behind" not in summary(samples)


def test_word_that_is_no_token_ends_the_evaluation() -> None:
    with pytest.raises(SystemExit, match="no token of an answer is 'then': th en"):
        summary([Scored([1.0, 1.0], ["th", "en"], 1, 1, "")], "then")


def results_of(study: Study, losses: dict[str, list[float]]) -> dict[str, Any]:
    keys = [column.key for column in study.columns]
    arms = {arm: [{"loss": loss, **dict.fromkeys(keys, 0.5)} for loss in seeds] for arm, seeds in losses.items()}
    head = {"command": "a command", "date": "2026-11-30", "machine": "a machine"}
    return {**head, "settings": vars(ablations.FULL), "arms": arms}


def test_section_says_which_differences_are_more_than_chance() -> None:
    losses = {"off": [1.0, 1.1], "0.1": [0.5, 0.6001], "4": [1.5, 1.6001], "64": [1.0, 1.3]}
    text = section.section(pruning.STUDY, results_of(pruning.STUDY, losses))
    assert "| 4 | 1.550 ± 0.636 | +0.500 ± 0.001 | 0.500 ± 0.000 | 0.50 ± 0.00 |" in text
    assert "higher: 4; lower: 0.1 (published); not told apart: 64. Where the interval" in text
    assert "2 seeds; 200 held-out samples." in text


def test_section_of_one_seed_claims_nothing() -> None:
    text = section.section(resolution.STUDY, results_of(resolution.STUDY, {"any": [1.0], "fixed": [2.0]}))
    assert "| any resolution | 1.000 | −1.000 |" in text
    assert "One seed has no interval" in text
    assert "lower" not in text


@pytest.mark.parametrize("name", ablations.STUDIES)
def test_page_has_the_section_of_the_stored_results(name: str) -> None:
    page = ablations.PAGE.read_text()
    begin, end = table.marks(f"ablation {name}")
    results = ablations.stored()
    assert (begin in page) == (name in results)
    if name in results:
        written = page.split(begin)[1].split(end)[0].strip()
        assert written == section.section(ablations.STUDIES[name], results[name])


def test_other_results_give_another_section(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for loss in (1.0, 2.0):
        text = section.section(resolution.STUDY, results_of(resolution.STUDY, {"any": [loss], "fixed": [2.0]}))
        table.write_page(page, text, "ablation resolution", resolution.STUDY.heading)
    written = page.read_text()
    assert written.count(resolution.STUDY.heading) == 1
    assert "| any resolution | 2.000 | +0.000 |" in written
    assert "1.000" not in written


def test_steps_are_those_of_every_arm(tmp_path: Path) -> None:
    sizes: Sizes = ablations.laboratory(tmp_path, tiny=False, steps=7).sizes
    assert {sizes.pruning_steps, sizes.resolution_steps, sizes.packing_steps, sizes.quota_steps} == {7}
    assert sizes.helper_steps == ablations.FULL.helper_steps
    with pytest.raises(SystemExit, match="begun with pruning_steps 7, not 8"):
        ablations.laboratory(tmp_path, tiny=False, steps=8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="the cut-outs are a Debian package")
def test_tiny_ablations_run_from_scenes_to_tables(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "benchmarks/evidence/ablations.py"), "--work", str(tmp_path), "--tiny"]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert {name: list(one["arms"]) for name, one in results.items()} == {
        name: list(study.arms) for name, study in ablations.STUDIES.items()
    }
    losses = [seeds[0]["loss"] for seeds in results["packing"]["arms"].values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)
    again = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    done_before = set(re.findall(r"^(\S+): done before$", again.stderr, re.MULTILINE))
    assert done_before == {file.stem for file in (tmp_path / "steps").iterdir()}
    assert again.stdout.splitlines()[:3] == done.stdout.splitlines()[:3]
