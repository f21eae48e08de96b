"""Films become records, records train stages 3 and 4 as they are, and a small model learns when an event happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import yaml
from demo_lessons import write_tokenizer

from core.videos import decode, probe
from manifests import open_run
from manifests.record_files import parse_record, read_records
from manifests.storage import Folder
from model.training.data.grounding import spans_of
from model.training.metrics_log import read_metrics
from model.training.recipe import load_recipe
from model.training.run import train
from pipeline.execution.runner import recipe_of
from pipeline.publishing.clips.publish import publish_clips
from pipeline.recipe import parse_recipe
from pipeline.recipe_file import PublishClips
from tests import coloured_films
from tests.coloured_films import CLIP, CLIPS, COLOURS, Shown
from tests.runs import jobs_here, run_here

pytestmark = pytest.mark.timeout(600)

RECIPES = Path(__file__).parents[2] / "recipes"
DEMO = RECIPES / "train-demo.yaml"
SUBSETS = ("captions", "questions", "grounding", "stream")
FILMS, STEPS = 2, 500


class Published(NamedTuple):
    """A publication, what each of its clips shows, and a tokenizer with the words of its records."""

    out: Path
    shown: dict[tuple[str, int], list[Shown]]
    tokenizer: Path

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        return {subset: {"records": str(self.out / subset), "media": str(self.out)} for subset in SUBSETS}


@pytest.fixture(scope="module")
def published(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The run of films, that of their clips, and the publication, by the recipe's own stages and settings."""
    folder = tmp_path_factory.mktemp("clips")
    shown = coloured_films.films(folder / "films", FILMS)
    written = coloured_films.recipe(folder / "films")
    run_here(written, folder / "run")
    of_clips = parse_recipe(written, "test").clips_of(str(folder / "run"))
    assert of_clips is not None
    recipe, url = of_clips
    run_here(recipe.resolved(), url)
    run, out = open_run(url), folder / "out"
    assert isinstance(recipe.publish, PublishClips)
    with jobs_here():
        publish_clips(run, recipe_of(run), recipe.publish, Folder.at(str(out)), str(out))
    records = [record for subset in SUBSETS for record in read_records(out / subset)]
    times = [f"Time {second}.0s:,Time" for second in range(CLIP)]
    write_tokenizer(folder / "tokenizer", ["\n".join(turn.text for turn in r.turns) for r in records] + 2 * times)
    return Published(out, shown, folder / "tokenizer")


def clip_of(record: Any) -> tuple[str, int]:
    """The film of a record, and where in it the clip starts."""
    film, _, span = record.source.file.partition("/")
    return film, round(float(span.partition("-")[0]))


def told(texts: list[str]) -> dict[tuple[str, int], list[Shown]]:
    """The events that records of grounding tell, by clip."""
    events: dict[tuple[str, int], list[Shown]] = {}
    for record in map(parse_record, texts):
        question, answer = (turn.text for turn in record.turns)
        (colour,) = [name for name in COLOURS if f"all {name}" in question]
        (span,) = spans_of(answer)
        events.setdefault(clip_of(record), []).append(Shown(*span, colour))
        exact = record.turns[1].spans[0]
        assert span == pytest.approx((exact.start, exact.end), abs=0.051)
    return {clip: sorted(events[clip]) for clip in events}


def to_answers(shown: dict[tuple[str, int], list[Shown]]) -> dict[tuple[str, int], list[Shown]]:
    """Times as answers write them."""
    return {
        clip: [Shown(float(f"{event.start:.1f}"), float(f"{event.end:.1f}"), event.colour) for event in events]
        for clip, events in shown.items()
    }


def test_every_reader_finds_when_each_colour_is_shown(published: Published, tmp_path: Path) -> None:
    import datasets
    import duckdb

    expected = to_answers(published.shown)
    assert len(expected) == FILMS * CLIPS
    glob = f"{published.out}/grounding/*.parquet"
    assert told(pl.read_parquet(glob)["record"].to_list()) == expected
    assert told([text for (text,) in duckdb.sql(f"select record from '{glob}'").fetchall()]) == expected
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(published.out), "grounding", split="train", cache_dir=cache)
    assert told(list(loaded["record"])) == expected


def test_film_of_a_record_shows_what_the_record_tells(published: Published) -> None:
    for subset in SUBSETS:
        for record in read_records(published.out / subset):
            means, times = decode(probe(published.out / record.media[0].path, fps=1), lambda f: np.mean(f, (0, 1)))
            assert len(means) == CLIP
            for mean, time in zip(means, times, strict=True):
                (seen,) = [e.colour for e in published.shown[clip_of(record)] if e.start <= time < e.end]
                assert min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum())) == seen


def training(path: Path, published: Published, stages: list[dict[str, Any]], **sizes: Any) -> Path:
    """Write the demo's recipe with other stages, and with the records as its sources. Return its path."""
    demo = yaml.safe_load(DEMO.read_text())
    model = {**demo["model"], "tokenizer": str(published.tokenizer)}
    model |= {part: {**model[part], **changes} for part, changes in sizes.items()}
    rest = {"workers": 0, "ask": 0, "save_every": 10_000, "evaluate_every": 10_000, "export_dtype": "float32"}
    written = {**demo, "model": model, "sources": published.sources, "stages": stages, **rest}
    path.write_text(yaml.safe_dump(written))
    return path


def demo_stage(name: str, **changes: Any) -> dict[str, Any]:
    """A stage of the demo's recipe, whose rows hold clips with a frame a second."""
    (stage,) = [stage for stage in yaml.safe_load(DEMO.read_text())["stages"] if stage["name"] == name]
    return {**stage, "max_frames": CLIP, "visual_tokens": 256, **changes}


@pytest.mark.thorough
def test_stages_3_and_4_train_on_the_shards_as_mix_says(published: Published, tmp_path: Path, vl3syn: Any) -> None:
    mixture = {subset: 1.0 for subset in SUBSETS}
    stages = [demo_stage(name, mixture=mixture, steps=None, epochs=1) for name in ("multitask", "video")]
    recipe = training(tmp_path / "recipe.yaml", published, stages)
    done = vl3syn("mix", recipe, "--json")
    assert done.returncode == 0, done.stderr
    forecast = json.loads(done.stdout)
    assert forecast["exact"] is True
    clips = FILMS * CLIPS
    counts = {"captions": 3 * clips, "questions": 3 * clips, "grounding": 3 * clips, "stream": clips}
    for stage in forecast["stages"]:
        totals = {source["name"]: source["totals"] for source in stage["sources"]}
        assert {name: of["samples"]["value"] for name, of in totals.items()} == counts
        assert {of["skipped"]["value"] for of in totals.values()} == {0}
        for name in ("captions", "questions", "grounding"):
            of = totals[name]
            assert (of["frames"]["value"], of["seconds"]["value"]) == (CLIP * counts[name], CLIP * counts[name]), name

    train(load_recipe(recipe), tmp_path / "training")
    steps = [line for line in read_metrics(tmp_path / "training") if line["kind"] == "step"]
    assert {line["stage"] for line in steps} == {"multitask", "video"}
    assert [line["skipped"] for line in steps if line["skipped"]] == []
    for stage in forecast["stages"]:
        own = [line for line in steps if line["stage"] == stage["name"]]
        seen = {
            "steps": len(own),
            **{name: sum(line[name] for line in own) for name in ("samples", "tokens", "patches")},
            "learned": sum(line["labelled"] for line in own),
        }
        said = {name: stage["totals"][name]["value"] for name in ("tokens", "patches", "learned")}
        assert seen == {"steps": stage["steps"]["value"], "samples": sum(counts.values()), **said}


def test_recipe_for_the_demos_clips_trains_on_such_shards(published: Published, tmp_path: Path) -> None:
    written = yaml.safe_load((RECIPES / "train-demo-video.yaml").read_text())
    subsets = {Path(source["records"]).relative_to(source["media"]) for source in written["sources"].values()}
    assert subsets == set(map(Path, SUBSETS))
    written |= {"sources": published.sources, "stages": [{**written["stages"][0], "steps": 2}], "ask": 0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    train(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "training")
    steps = [line for line in read_metrics(tmp_path / "training") if line["kind"] == "step"]
    assert [line["skipped"] for line in steps] == [[], []]


@pytest.mark.thorough
def test_small_model_learns_when_events_happen(published: Published, tmp_path: Path, vl3syn: Any) -> None:
    """Each film's own events: with the films of other clips the same questions are far harder."""
    stage = demo_stage("video", mixture={"grounding": 1.0}, video_merge=2, steps=STEPS, learning_rates={".*": 3e-3})
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    language = {"hidden_size": 128, "intermediate_size": 256}
    recipe = training(tmp_path / "recipe.yaml", published, [stage], vision=vision, language=language)
    model = train(load_recipe(recipe), tmp_path / "training")
    losses = [line["loss"] for line in read_metrics(tmp_path / "training") if line["kind"] == "step"]
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) / 10

    data = ("--data", published.out / "grounding", "--media", published.out)
    done = vl3syn("eval", model, *data, "--task", "grounding", "--max-new-tokens", 16, "--shuffle-images", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["skipped"] == []
    assert result["shuffled_loss"]["mean"] > 10 * result["shuffled_loss"]["own"]
    assert result["scores"]["means"]["R@1_0.5"]["count"] == 3 * FILMS * CLIPS
    assert result["scores"]["means"]["R@1_0.5"]["value"] >= 0.9
