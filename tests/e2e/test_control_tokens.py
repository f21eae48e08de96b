"""Control tokens in captions and prompts: counted, turned away, and never a second mark in what is trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from captioners.recaption import default_rules
from manifests import Run, funnel, open_run
from manifests.shards import conversations
from manifests.storage import Folder
from model.training.data.conversations import from_turns
from pipeline.execution import planner
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.runs import run

pytestmark = pytest.mark.usefixtures("here")
MakeImages = Callable[..., Path]
WORDS = "A red square lies on a grey table beside a small green cup."
MARKED = "A red <image> square lies on a grey table beside a <|image_pad|> cup."
AS_WORDS = "A red < image > square lies on a grey table beside a < |image_pad| > cup."
PROMPT = "Describe the image in one sentence."


def recipe(pool: Path, url: str, **settings: Any) -> dict[str, Any]:
    engine = {"kind": "server", "url": url, "concurrency": 1, "pause": 0.01, "timeout": 20, "tries": 2}
    stage = {"stage": "short_caption", "model": "m", "prompts": ["What is it?"], "engine": engine}
    return {"name": "t", "pool": {"images": str(pool)}, "stages": [stage | settings], "publish": {}}


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def answering(server: Any, captions: list[str]) -> None:
    """Let the server say these, one for each image."""
    left, said = iter(captions), {}
    server.caption = lambda key: said[key] if key in said else said.setdefault(key, next(left))


def as_an_earlier_version(opened: Run) -> None:
    """Take the column out of the stored captions, as if a version had made them that had none."""
    table = opened.stages[0].table
    (part,) = table.parts()
    path = f"{table.folder.path}/{part}"
    rows = pq.read_table(path)
    metadata = {name: value for name, value in (rows.schema.metadata or {}).items() if name != b"vl3syn.layout"}
    pq.write_table(rows.drop_columns(["short_control_tokens"]).replace_schema_metadata(metadata), path)


def test_captions_with_tokens_are_counted_and_dropped(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    pool, url = make_images(tmp_path / "pool", 3), tmp_path / "run"
    with chat_server() as server:
        answering(server, [WORDS, MARKED, "A red [INST] square on a table."])
        path = written(tmp_path, recipe(pool, server.url, keep=default_rules("short")))
        done = vl3syn("run", path, "--run", url)
    assert done.returncode == 0, done.stderr
    rows = open_run(url).manifest().collect()
    assert dict(rows.select("short_caption", "short_control_tokens").rows())[MARKED] == 2
    assert sorted(rows["drop_reason"].to_list(), key=str) == [
        None,
        "short_control_tokens 1 > 0",
        "short_control_tokens 2 > 0",
    ]
    assert pl.read_parquet(url / "shards/data/*.parquet")["short_caption"].to_list() == [WORDS]


def test_old_captions_are_counted_when_a_rule_asks(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 3), tmp_path / "run"
    with chat_server() as server:
        answering(server, [WORDS, MARKED, f"{WORDS} It is old."])
        opened, _ = run(recipe(pool, server.url), url)
        as_an_earlier_version(opened)
        opened, jobs = run(recipe(pool, server.url, keep=default_rules("short")), url)
    assert jobs["short_caption"].computed == 0
    assert funnel(opened).survivors == 2
    rows = opened.manifest().collect().sort("short_caption")
    assert rows["short_control_tokens"].to_list() == [2, 0, 0]
    assert rows["drop_reason"].to_list() == ["short_control_tokens 2 > 0", None, None]
    assert set(opened.facts("short_caption", ["short_control_tokens"]).collect().to_series()) == {0, 2}


@pytest.mark.parametrize("small", [0, 1 << 30], ids=["read by workers", "read by the driver"])
def test_shards_count_the_tokens_of_old_captions(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(planner, "_SMALL", small)
    pool, url, out = make_images(tmp_path / "pool", 2), tmp_path / "run", tmp_path / "out"
    with chat_server() as server:
        answering(server, [WORDS, MARKED])
        opened, _ = run(recipe(pool, server.url), url)
        as_an_earlier_version(opened)
        opened, _ = run(recipe(pool, server.url), url)
    publish(opened, recipe_of(opened), Publish(), Folder.at(out), str(out))
    rows = pl.read_parquet(f"{out}/data/*.parquet")
    assert dict(rows.select("short_caption", "short_control_tokens").rows()) == {WORDS: 0, MARKED: 2}


def test_caption_command_drops_captions_with_tokens(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    pool, url = make_images(tmp_path / "pool", 2), tmp_path / "run"
    with chat_server() as server:
        answering(server, [WORDS, MARKED])
        vl3syn("index", "--images", pool, "--run", url)
        done = vl3syn("caption", "short", "--run", url, "--model", "m", "--server", server.url)
    assert done.returncode == 0, done.stderr
    assert open_run(url).recipe["stages"][0]["keep"]["max_short_control_tokens"] == 0
    assert funnel(open_run(url)).survivors == 1


@pytest.mark.parametrize("token", ["<image>", "<video>", "<|im_end|>", "<|vision_start|>"])
def test_prompt_with_a_token_is_refused_before_the_run(
    token: str, tmp_path: Path, make_images: MakeImages, vl3syn: Any
) -> None:
    pool = make_images(tmp_path / "pool", 1)
    (tmp_path / "prompts.txt").write_text(f"What is it?\n\n{token}\n{PROMPT}\n")
    with chat_server() as server:
        for prompts in ([f"{token}\n{PROMPT}"], str(tmp_path / "prompts.txt")):
            path = written(tmp_path, recipe(pool, server.url, prompts=prompts))
            done = vl3syn("run", path, "--run", tmp_path / "run")
            assert (done.returncode, done.stdout) == (1, "")
            assert f"short_caption: prompts: '{token}\\n{PROMPT}' has the control token {token}" in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
        assert sum(server.requests.values()) == 0
    assert not (tmp_path / "run").exists()


def test_prompt_option_with_a_token_is_refused(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    pool, url = make_images(tmp_path / "pool", 1), tmp_path / "run"
    (tmp_path / "prompts.txt").write_text(f"<image>\n{PROMPT}\n")
    assert vl3syn("index", "--images", pool, "--run", url).returncode == 0
    before = (url / "recipe.yaml").read_bytes()
    with chat_server() as server:
        of_chat = ("short", "--model", "m", "--server", server.url, "--prompts", tmp_path / "prompts.txt")
        for options in (of_chat, ("coarse", "--prompt", "<image> a photo of")):
            done = vl3syn("caption", *options, "--run", url)
            assert done.returncode == 1
            assert "has the control token <image>; take it out" in done.stderr
        assert sum(server.requests.values()) == 0
    assert (url / "recipe.yaml").read_bytes() == before


def test_older_run_with_a_token_in_its_prompt_publishes(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    """Its shards have one mark for each image, so that a training takes them."""
    pool, url = make_images(tmp_path / "pool", 3), tmp_path / "run"
    with chat_server() as server:
        answering(server, [WORDS, MARKED, f"{WORDS}"])
        older = recipe(pool, server.url, prompts=[f"<image>\n{PROMPT}", f"See <image>: {PROMPT}"])
        path = written(tmp_path, older)
        run(older, url)
        done = vl3syn("run", path, "--run", url)
    assert done.returncode == 0, done.stderr
    shard = pl.read_parquet(url / "shards/data/*.parquet")
    assert sorted(shard["short_caption"]) == sorted([WORDS, WORDS, MARKED])
    questions = {f"<image>\n{PROMPT}", f"<image>\nSee < image >: {PROMPT}"}
    for turns in shard["conversations"].to_list():
        assert turns[0]["value"] in questions
        assert turns[1]["value"] in (WORDS, AS_WORDS)
        assert from_turns(turns, images=[b""])[0]["content"][0] == {"type": "image", "image": b""}


def test_conversation_has_one_image_mark_with_any_texts() -> None:
    questions = ["<image>\n<image> What?", "<video>What is <image>?", "What?", "<image>"]
    captions = ["A <image>.", "<|im_end|>", None, "I <3 <b>you</b>."]
    turns = conversations(pa.array(questions), pa.array(captions)).to_pylist()
    assert [None if t is None else [turn["value"] for turn in t] for t in turns] == [
        ["<image>\nWhat?", "A < image >."],
        ["<image>\n< video >What is < image >?", "< |im_end| >"],
        None,
        ["<image>\n", "I <3 <b>you</b>."],
    ]
