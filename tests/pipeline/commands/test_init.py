"""Recipes for a user's case: what is written is a recipe, whatever was chosen, and nothing is overwritten."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from captioners.engines.registry import ENGINES
from pipeline.commands.recipe_text import BASES, MODELS, Choices, compose
from pipeline.pools.registry import POOLS
from pipeline.recipe import Recipe, load_recipe

Call = Callable[..., subprocess.CompletedProcess[str]]
MakeImages = Callable[..., Path]
CAPTIONS = {"cpu": ("none", "describe", *ENGINES), "gpu": ("none", *ENGINES), "cluster": ("none", *ENGINES)}
RULE = re.compile(r"    keep: \{|      (min|max|top|per_group|total)")


IMAGE_POOLS = [name for name, kind in POOLS.items() if not kind.has_films]


def _choices(hardware: str, captions: str, kind: str = "images", size: int | None = None) -> Choices:
    server = "http://127.0.0.1:8000/v1" if captions == "server" else None
    return Choices("mine", {kind: "a: b/*"}, hardware, captions, MODELS[hardware], server, size)


def _load(folder: Path, choices: Choices) -> Recipe:
    file = folder / "recipe.yaml"
    file.write_text(compose(choices))
    return load_recipe(str(file))


@pytest.mark.parametrize("hardware", BASES)
def test_every_combination_is_a_valid_recipe(hardware: str, tmp_path: Path) -> None:
    for captions, kind, size in [
        *product(CAPTIONS[hardware], ["images"], (None, 7000)),
        *product(["none"], IMAGE_POOLS, (None, 7000)),
    ]:
        recipe = _load(tmp_path, _choices(hardware, captions, kind, size))
        names = [step.name for step in recipe.steps]
        assert (recipe.pool.kind, recipe.pool.where) == (kind, "a: b/*")
        assert ("download" in names) == (kind == "urls")
        asked = {"none": [], "describe": ["describe"]}.get(captions, ["short_caption", "detailed_caption"])
        assert [name for name in names if name in ("describe", "short_caption", "detailed_caption")] == asked
        assert (recipe.publish is None) == (captions == "none")
        totals = [rule.threshold for step in recipe.steps for rule in step.rules if rule.name == "total_cluster"]
        assert totals == ([7000] if size else [])


def test_clusters_of_an_uncounted_pool_are_to_be_edited(tmp_path: Path, vl3syn: Call) -> None:
    for hardware, clusters in (("cpu", 12), ("gpu", 50)):
        arguments = ("init", tmp_path / "lists", "--kind", "urls", "--hardware", hardware, "--force", "--out")
        done = vl3syn(*arguments, tmp_path / "r.yaml")
        assert "the images were not counted: set `clusters`" in done.stderr
        line = next(line for line in (tmp_path / "r.yaml").read_text().splitlines() if "    clusters:" in line)
        assert line.split()[1:4] == [str(clusters), "#", "EDIT:"]
        done = vl3syn(*arguments, tmp_path / "r.yaml", "--size", 900)
        assert "not counted" not in done.stderr
        assert "clusters: 30 " in (tmp_path / "r.yaml").read_text()


@pytest.mark.parametrize("text", ["a\nb", "x\x85y", "\u2028", "'q\"", "a: #b", "{x}", "yes", "é", r"\1"])
def test_odd_names_arrive_as_they_are(text: str, tmp_path: Path) -> None:
    choices = Choices(text, {"images": text}, "cpu", "transformers", text)
    recipe = _load(tmp_path, choices)
    stage = next(step.stage for step in recipe.steps if step.name == "short_caption")
    assert (recipe.name, recipe.pool.where, getattr(stage, "model", None)) == (text, text, text)


@pytest.mark.parametrize("hardware", BASES)
def test_every_threshold_says_where_it_comes_from(hardware: str) -> None:
    text = compose(_choices(hardware, "transformers", "urls", 7000))
    explained = True
    for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        if line.startswith("  - stage:"):
            explained = "#" in line
        if RULE.match(line):
            assert explained or "#" in line or before.strip().startswith("#"), line
    assert text.count("  - stage: clusters") == 1


def test_unfitting_choices_are_refused_in_one_line(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    pool, out = make_images(tmp_path / "pool", 2), tmp_path / "r.yaml"
    for arguments, message in (
        ((), "give the pool: vl3syn init PATH"),
        ((tmp_path / "none",), "has nothing to index"),
        ((pool, "--hardware", "tpu"), "hardware: 'tpu' is none of cpu, gpu, cluster"),
        ((pool, "--captions", "llava"), "captions: 'llava' is none of none, describe, server"),
        ((pool, "--captions", "describe", "--hardware", "gpu"), "only the recipe for a cpu"),
        ((pool, "--server", "http://a.example"), "--server is for --captions server"),
        ((pool, "--kind", "zips"), "--kind: 'zips' is none of images, tars"),
        ((pool, "--captions", "none", "--model", "a/b"), "--model is for captions by an engine, not none"),
        (("",), "an empty path"),
        ((pool, "--out", ""), "--out '': name a file"),
        ((pool, "--out", f"{tmp_path}/new/"), "new/': name a file"),
        ((pool, "--captions", "server", "--server", "http://u:secret@a.example/v1"), "credentials"),
    ):
        done = vl3syn("init", "--out", out, *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert message in done.stderr
    assert not out.exists()


def test_existing_file_is_overwritten_by_force_only(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    pool, out = make_images(tmp_path / "pool", 30), tmp_path / "r.yaml"
    out.write_text("mine")
    done = vl3syn("init", pool, "--out", out, "--hardware", "cpu")
    assert done.returncode == 1
    assert "exists: give another --out, or --force" in done.stderr
    assert out.read_text() == "mine"
    done = vl3syn("init", pool, "--out", out, "--hardware", "cpu", "--force")
    assert done.returncode == 0, done.stderr
    assert "a folder of images (30 .jpg)" in done.stderr
    assert "clusters: 5 " in out.read_text(), "the square root of the images"
    assert f"vl3syn run '{tmp_path}/a b.yaml' --run" in vl3syn("init", pool, "--out", tmp_path / "a b.yaml").stdout
    assert load_recipe(str(out)).pool.where == str(pool)


def test_terminal_is_asked_and_enter_takes_defaults(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "pool", 3)
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "pipeline", "init", "--out", f"{tmp_path}/r.yaml"]
    process = subprocess.Popen(command, stdin=terminal, stderr=terminal, stdout=subprocess.PIPE)
    os.close(terminal)
    os.write(controller, f"{tmp_path}/pool\ncpu\n\n100\n".encode())  # the captions: the default
    assert process.wait(timeout=200) == 0
    asked = os.read(controller, 1 << 16).decode()
    os.close(controller)
    assert "Where are the images?" in asked
    assert "a folder of images (3 .jpg)" in asked
    recipe = load_recipe(f"{tmp_path}/r.yaml")
    assert recipe.steps[-1].name == "describe"
    assert "total_cluster: 100" in (tmp_path / "r.yaml").read_text()


@pytest.mark.slow
def test_written_recipe_runs_as_it_is(tmp_path: Path, photographs: list[Path], vl3syn_process: Call) -> None:
    (tmp_path / "pool").mkdir()
    for path in photographs[:12]:
        (tmp_path / "pool" / path.name).write_bytes(path.read_bytes())
    recipe = tmp_path / "r.yaml"
    assert vl3syn_process("init", tmp_path / "pool", "--out", recipe, "--hardware", "cpu").returncode == 0
    done = vl3syn_process("run", recipe, "--run", tmp_path / "run", timeout=280)
    assert done.returncode == 0, done.stderr
    assert "published: " in done.stdout
