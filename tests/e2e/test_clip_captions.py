"""Texts about clips by a server, through the runner: every clip ends sound or with a reason, and is paid for once."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from captioners.recaption import default_rules
from manifests import open_run
from tests import clip_answers
from tests.chat_server import chat_server
from tests.kills import end, kill, wait_for_end_of
from tests.runs import run

MakeImages = Callable[..., Path]
FAULTS = ("500", "429", "reset", "malformed", "empty", "400", "cut")
FRAMES = {"stage": "tests.frames_of_images:FramesOfImages"}


def recipe(pool: Path, url: str, *stages: str, **engine: Any) -> dict[str, Any]:
    server = {"kind": "server", "url": url, "concurrency": 8, "pause": 0.01, "timeout": 20, "tries": 2, **engine}
    asked = [{"stage": stage, "model": "m", "engine": server} for stage in stages]
    return {"name": "t", "pool": {"images": str(pool)}, "stages": [FRAMES, *asked]}


@pytest.mark.usefixtures("here")
def test_every_clip_ends_sound_or_with_a_reason(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 120), tmp_path / "run"
    with chat_server(words=clip_answers.mixed, faults=FAULTS, share=0.2) as server:
        written = recipe(pool, server.url, "dense_caption", "summary")
        opened, jobs = run(written, url)
        dense = opened.facts("dense_caption").collect()
        assert dense.height == 120
        assert (dense["dense_caption"].is_not_null() ^ dense["error"].is_not_null()).all()
        assert dense.filter(pl.col("error").is_null())["event_count"].unique().to_list() == [2]
        again = dense.filter("retry")
        assert jobs["dense_caption"].errors == dense["error"].is_not_null().sum() > again.height > 0
        summaries = opened.facts("summary").collect()
        assert set(summaries["id"]) == set(dense.filter(pl.col("error").is_null())["id"])
        sound = dense.filter(~pl.col("retry"))["id"]
        before = Counter(server.answered)

        server.share = 0
        opened, jobs = run(written, url)
        assert jobs["dense_caption"].computed == again.height
        now = opened.facts("dense_caption").sort("id").collect()
        assert now.filter(pl.col("id").is_in(sound.implode())).equals(
            dense.filter(pl.col("id").is_in(sound.implode())).sort("id")
        )
        left = now["error"].drop_nulls().str.split(":").list.first().unique().sort().to_list()
        assert left == ["no valid answer in two tries", "server"]
        dear = sum((Counter(server.answered) - before).values())
        assert dear <= 2 * again.height + jobs["summary"].computed
        _, jobs = run(written, url)
        assert (jobs["dense_caption"].computed, jobs["summary"].computed) == (0, 0)


@pytest.mark.usefixtures("here")
def test_dense_and_summary_commands_caption_clips(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    pool, url = make_images(tmp_path / "pool", 8), tmp_path / "run"
    run({"name": "t", "pool": {"images": str(pool)}, "stages": [FRAMES]}, url)
    with chat_server(words=clip_answers.with_prose) as server:
        options = ("--server", server.url, "--model", "m", "--concurrency", 2, "--json")
        for use in ("dense", "summary"):
            done = vl3syn("caption", use, "--run", url, *options)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["funnel"]["survivors"] == 8
        assert sum(server.requests.values()) == 16
    stages = open_run(url).recipe["stages"]
    assert [entry["stage"] for entry in stages[1:]] == ["dense_caption", "summary"]
    assert [entry["keep"] for entry in stages[1:]] == [default_rules("dense"), default_rules("summary")]
    manifest = open_run(url).manifest().collect()
    assert manifest["events"].list.len().to_list() == [2] * 8
    assert "frames" not in manifest.columns
    refused = vl3syn("caption", "dense", "--run", url, "--engine", "lmdeploy")
    assert refused.returncode == 1
    assert "engine: lmdeploy takes one image per question, and a clip has several" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture
def paid(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A slow server in a process of its own, and its log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-m", "tests.chat_server", "--port", str(port), "--delay", "0.1", "--log", str(log)]
    server = subprocess.Popen([*command, "--words", "broken_first"])
    yield f"http://127.0.0.1:{port}/v1", log
    server.kill()
    server.wait()


@pytest.mark.slow
def test_run_killed_while_captioning_clips_repeats_nothing(
    tmp_path: Path, make_images: MakeImages, paid: tuple[str, Path]
) -> None:
    """Each clip costs two questions. Only those on their way at the kill may be asked again."""
    clips, concurrency, (url, log) = 100, 4, paid
    written = recipe(make_images(tmp_path / "pool", clips), url, "dense_caption", concurrency=concurrency, timeout=60)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    command = [sys.executable, "-m", "pipeline", "run", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")]
    mark = f"VL3SYN_TEST={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    driver = subprocess.Popen(
        command, env={**os.environ, name: value}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while log.read_text().count("answered") < 60 and driver.poll() is None:
            time.sleep(0.01)
        time.sleep(random.Random(3).random() * 0.2)
        assert kill("driver", driver.pid, mark)
        wait_for_end_of(mark)
    finally:
        end(mark)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    facts = open_run(tmp_path / "run").facts("dense_caption").collect()
    assert facts["id"].is_unique().all()
    assert facts.height == clips
    assert facts["error"].null_count() == clips
    assert set(facts["dense_tries"]) == {2}
    times = Counter(line for line in log.read_text().splitlines() if line.startswith("answered"))
    assert len(times) == 2 * clips
    assert sum(times.values()) - len(times) <= 2 * concurrency
