"""`vl3syn mix`: tables, JSON, the page, and errors of one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from core.errors import UserError
from pipeline.commands.app import app
from tests.model import clips
from tests.model.training import training_data
from tests.pages import HOSTILE_TEXT, Page

RATE = 1000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of two stages, with an image that is missing, a film, and a hostile answer."""
    folder = tmp_path_factory.mktemp("mix")
    written = training_data.recipe(folder, visual_tokens=100, max_frames=3)
    (folder / "qa" / "6.png").unlink()
    clips.write(folder / "qa" / "clip.mp4", [k / 2 for k in range(8)])
    turns = [{"from": "human", "value": "<video>What?"}, {"from": "gpt", "value": HOSTILE_TEXT[:120]}]
    with (folder / "qa" / "qa.jsonl").open("a") as file:
        file.write(json.dumps({"video": "clip.mp4", "conversations": turns}) + "\n")
    written["sources"]["qa"]["held_out"] = 0
    written["stages"][1]["mixture"]["qa"] = 1.0
    written["stages"][1] |= {"epochs": 1, "steps": None}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(written))
    return folder


def run(*options: object) -> Any:
    result = CliRunner().invoke(app, ["mix", *map(str, options)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def told(folder: Path, *options: object) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(run(folder / "recipe.yaml", "--json", *options).stdout)
    return printed


def test_json_has_every_stage_and_source_with_hours(folder: Path) -> None:
    seen = told(folder, "--tokens-per-second", RATE, "--tflops", 0.5, "--workers", 2)
    first, second = seen["stages"]
    assert seen["exact"] is True
    assert (first["steps"]["value"], [each["name"] for each in second["sources"]]) == (6, ["captions", "qa"])
    assert sum(source["share"] for source in second["sources"]) == pytest.approx(1)
    tokens, flops = (second["totals"][name]["value"] for name in ("tokens", "flops"))
    assert second["hours"]["tokens_per_second"]["value"] == pytest.approx(tokens / RATE / 2 / 3600)
    assert second["hours"]["tflops"]["value"] == pytest.approx(flops / 0.5e12 / 2 / 3600)
    kinds = [second["totals"][name]["value"] for name in ("learned", "text", "vision")]
    assert sum(kinds) == tokens
    assert seen["totals"]["tokens"]["value"] == tokens + first["totals"]["tokens"]["value"]
    (reason,) = second["sources"][1]["reasons"]
    assert reason["samples"] == second["totals"]["skipped"]["value"] == 1
    assert second["sources"][1]["totals"]["frames"]["value"] == 3


def test_tables_say_what_is_exact_and_what_is_skipped(folder: Path) -> None:
    printed = run(folder / "recipe.yaml", "--tokens-per-second", RATE).stdout
    assert "1 first: " in printed
    assert "all samples measured: exact" in printed
    assert "skipped, of the measured samples" in printed
    assert "6.png: no such file" in printed
    assert "hours by tokens/s" in printed


def test_only_the_named_stage_is_told(folder: Path) -> None:
    (stage,) = told(folder, "--stage", "second")["stages"]
    assert (stage["name"], stage["number"]) == ("second", 2)
    with pytest.raises(UserError, match=r"--stage secnd: the recipe has no such stage; did you mean 'second'\?"):
        run(folder / "recipe.yaml", "--stage", "secnd")


def test_page_shows_pictures_frames_and_marked_answers(folder: Path) -> None:
    page = folder / "new" / "mix.html"
    seen = told(folder, "--page", page)
    assert seen["page"] == str(page)
    html = page.read_text()
    assert "script" not in Page(html).tags
    assert html.count('<img src="data:image/jpeg;base64,') >= 10
    assert "<mark>" in html
    assert "visual tokens" in html
    assert "onerror=alert(1)>" not in html


def test_hostile_answer_and_film_are_on_the_page(folder: Path, tmp_path: Path) -> None:
    line = (folder / "qa" / "qa.jsonl").read_text().splitlines()[-1]
    (folder / "qa" / "film.jsonl").write_text(f"{line}\n")
    written = yaml.safe_load((folder / "recipe.yaml").read_text())
    written["sources"]["qa"]["annotations"] = str(folder / "qa" / "film.jsonl")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    run(tmp_path / "recipe.yaml", "--page", tmp_path / "mix.html", "--stage", "second")
    html = (tmp_path / "mix.html").read_text()
    assert "film, 3 frames of" in html
    assert "1.0 s, " in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "recipe.yaml: stages: "),
        ({"sources": {"captions": {"shards": "/nowhere"}, "qa": {"shards": "/nowhere"}}}, "/nowhere"),
        ({"sources": {"captions": {"annotations": "/nowhere.jsonl"}, "qa": {"shards": "/nowhere"}}}, "/nowhere.jsonl"),
        ({"model": {"checkpoint": "/nowhere"}}, "/nowhere"),
    ],
    ids=["recipe", "shards", "annotations", "model"],
)
def test_broken_recipe_is_refused_as_training_refuses_it(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    written = yaml.safe_load((folder / "recipe.yaml").read_text()) | changes
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    errors: list[str] = []
    commands: Sequence[Sequence[str]] = (["mix"], ["train", "--run", str(tmp_path / "out")])
    for command, *options in commands:
        result = CliRunner().invoke(app, [command, str(tmp_path / "recipe.yaml"), *options])
        assert isinstance(result.exception, UserError)
        errors.append(str(result.exception))
    assert errors[0] == errors[1]
    assert message in errors[0]


def test_recipe_that_a_training_has_stored_is_read(folder: Path, tmp_path: Path) -> None:
    """As earlier versions stored it: with keys of both kinds of sources, and without `held_out_seed`."""
    written = yaml.safe_load((folder / "recipe.yaml").read_text())
    written["sources"]["captions"] |= {"annotations": None, "media": None, "roots": []}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    assert told(tmp_path)["stages"] == told(folder)["stages"]


def test_workers_that_do_not_divide_the_lanes_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="stage first: 4 lanes for 3 workers: make `lanes` a multiple of the workers"):
        run(folder / "recipe.yaml", "--workers", 3)


def test_page_that_cannot_be_written_is_refused_before_any_work(folder: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        run(folder / "recipe.yaml", "--page", folder)
