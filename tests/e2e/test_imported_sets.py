"""All formats of `vl3syn import` in one training: each record is learned, none is skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from manifests.record_files import read_records
from model.training.recipe import parse_recipe
from model.training.run import train
from pipeline.commands.app import app
from tests.model.training import training_data
from tests.model.training.data.importers.importing import import_source
from tests.model.training.data.importers.published.fixtures import PUBLISHED
from tests.model.training.data.importers.published.layouts import write_film


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each format, with its media, its records and a source of a recipe that has one step for all."""
    folder = tmp_path_factory.mktemp("sets")
    film = write_film(folder / "film.mp4")
    sources = {}
    for name, published in PUBLISHED.items():
        place = folder / name
        place.mkdir()
        source, options = published.write_rows(place)
        published.write_media(place / "media", film)
        import_source(name, source, place / "media", place / "out", dataset=name, options=options)
        (place / "media").mkdir(exist_ok=True)
        sources[name] = {"records": str(place / "out"), "media": str(place / "media")}
    written = training_data.recipe(folder, tokens=2048, visual_tokens=256, rows=16, max_frames=4)
    stage = written["stages"][0] | {"mixture": dict.fromkeys(sources, 1.0), "epochs": 1, "steps": None}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(written | {"sources": sources, "stages": [stage]}))
    return folder


def test_one_step_trains_on_each_record_of_each_format(folder: Path) -> None:
    recipe = parse_recipe(yaml.safe_load((folder / "recipe.yaml").read_text()), "test")
    assert train(recipe, folder / "trained").is_dir()
    lines = map(json.loads, (folder / "trained/metrics.jsonl").read_text().splitlines())
    (step,) = [line for line in lines if line["kind"] == "step"]
    assert step["samples"] == sum(published.records for published in PUBLISHED.values())
    assert step["skipped"] == []
    assert math.isfinite(step["loss"])
    assert step["loss"] > 0


def test_mix_counts_the_samples_and_media_of_each_format(folder: Path) -> None:
    result = CliRunner().invoke(app, ["mix", str(folder / "recipe.yaml"), "--json"])
    assert result.exit_code == 0, result.output
    sources: list[Mapping[str, Any]] = json.loads(result.stdout)["stages"][0]["sources"]
    counted = {source["name"]: [total(source, key) for key in ("samples", "skipped", "split")] for source in sources}
    assert counted == {name: [published.records, 0, 0] for name, published in PUBLISHED.items()}
    for source in sources:
        records = read_records(folder / source["name"] / "out")
        kinds = {medium.type for record in records for medium in record.media}
        seen = {kind for kind, key in (("image", "images"), ("video", "frames")) if total(source, key)}
        assert seen == kinds, source["name"]
        assert total(source, "learned") > 0


def total(source: Mapping[str, Any], key: str) -> float:
    """A quantity of a source; it is exact, as all samples were measured."""
    value: float = source["totals"][key]["value"]
    return value
