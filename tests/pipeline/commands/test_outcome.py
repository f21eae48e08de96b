"""How a command ends: exit 1 and one line where everything failed, and nothing on stderr but what is ours."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml
from PIL import Image

from tests.chat_server import chat_server
from tests.runs import run

MakeImages = Callable[..., Path]
Call = Callable[..., subprocess.CompletedProcess[str]]


def recipe_at(folder: Path, pool: Path, *stages: dict[str, object], **more: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"pool": {"images": str(pool)}, "stages": list(stages), **more}))
    return path


def ours(stderr: str) -> list[str]:
    """The lines of stderr without the one that Ray's core prints for each actor pool; see docs/decisions.md."""
    known = re.compile(r"\[.* E .*\] core_worker\.cc:\d+: Actor with class name: .* has constructor arguments in the ")
    return [line for line in stderr.splitlines() if not known.match(line)]


def test_index_of_errors_only_fails_with_the_commonest_reason(tmp_path: Path, vl3syn: Call) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(3):
        (pool / f"{number}.jpg").write_text("<html><body>Too many requests</body></html>")
    (pool / "3.jpg").touch()
    done = vl3syn("index", "--images", pool, "--run", tmp_path / "run", "--json")
    assert done.returncode == 1
    assert ours(done.stderr)[-1] == "vl3syn: index: all 4 rows failed: not an image: HTML"
    assert json.loads(done.stdout)["jobs"][0]["errors"] == 4
    again = vl3syn("run", recipe_at(tmp_path, pool, {"stage": "aspect_ratio"}), "--run", tmp_path / "run")
    assert again.returncode == 1, "nothing new was computed, and what is stored is of no use"
    assert again.stdout.startswith("4 rows, 0 survive (0.0%)")
    assert ours(again.stderr)[-1] == "vl3syn: index: all 4 rows failed: not an image: HTML"
    stage = vl3syn("filter", "aspect-ratio", "--run", tmp_path / "run")
    assert (stage.returncode, ours(stage.stderr)[-1]) == (1, "vl3syn: index: all 4 rows failed: not an image: HTML")


@pytest.mark.usefixtures("here")
def test_stage_of_errors_only_fails_but_rules_may_drop_all(tmp_path: Path, vl3syn: Call) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(3):
        path = pool / f"{number}.jpg"
        Image.effect_noise((200, 200 + number), 60).convert("RGB").save(path)
        path.write_bytes(path.read_bytes()[:-2000])  # the header stays whole
    recipe = recipe_at(tmp_path, pool, {"stage": "aspect_ratio"}, {"stage": "hashes"})
    done = vl3syn("run", recipe, "--run", tmp_path / "run", "--json")
    assert done.returncode == 1
    assert ours(done.stderr)[-1].startswith("vl3syn: hashes: all 3 rows failed: undecodable: OSError image file")
    assert json.loads(done.stdout)["funnel"]["stages"][2]["errors"] == 3
    done = vl3syn("filter", "aspect-ratio", "--run", tmp_path / "run", "--min-side", "1000", "--json")
    assert (done.returncode, json.loads(done.stdout)["funnel"]["survivors"]) == (0, 0), "the rules' verdict is a result"
    done = vl3syn("filter", "hashes", "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, "no row reaches it"


@pytest.mark.usefixtures("here")
def test_publication_without_an_image_is_a_failure(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    pool = make_images(tmp_path / "pool", 4)
    with chat_server() as server:
        engine = {"kind": "server", "url": server.url}
        stages = [{"stage": "short_caption", "model": "m", "engine": engine}, {"stage": "hashes"}]
        opened, _ = run({"pool": {"images": str(pool)}, "stages": stages}, tmp_path / "run")
    assert opened.manifest().filter(pl.col("status") == "kept").collect().height == 4
    for path in pool.iterdir():
        Image.new("RGB", (90, 90), (1, 2, 3)).save(path)
    done = vl3syn("publish", "--run", tmp_path / "run", "--json")
    assert done.returncode == 1
    assert ours(done.stderr)[-1].startswith("vl3syn: publish: all 4 images left out: changed: the pool has other bytes")
    assert json.loads(done.stdout)["rows"] == 0


def test_stderr_of_a_run_has_no_lines_of_libraries(
    tmp_path: Path, make_images: MakeImages, vl3syn_process: Call
) -> None:
    pool = make_images(tmp_path / "pool", 5)
    done = vl3syn_process("run", recipe_at(tmp_path, pool, {"stage": "hashes"}), "--run", tmp_path / "run", "--json")
    assert done.returncode == 0
    assert [line.partition(": ")[0] for line in ours(done.stderr)] == ["index", "hashes"]
    assert len(done.stderr.splitlines()) <= 3, "of Ray's core one line at most for the one actor pool"


@pytest.mark.usefixtures("here")
def test_server_that_resets_every_call_is_a_one_line_error(
    tmp_path: Path, make_images: MakeImages, vl3syn: Call
) -> None:
    pool = make_images(tmp_path / "pool", 150)
    with chat_server(faults=("reset",), share=1.0) as server:
        engine = {"kind": "server", "url": server.url, "tries": 1, "pause": 0.01}
        recipe = recipe_at(tmp_path, pool, {"stage": "short_caption", "model": "m", "engine": engine})
        done = vl3syn("run", recipe, "--run", tmp_path / "run", "--json")
    assert done.returncode == 1
    lines = ours(done.stderr)
    assert [line.partition(": ")[0] for line in lines] == ["index", "vl3syn"], done.stderr
    assert "images in a row without an answer" in lines[-1]
