"""Questions by a server, through the runner: every clip ends with questions or a reason, no answer is paid twice."""

from __future__ import annotations

import json
import os
import random
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

from manifests import open_run
from tests.chat_server import ChatServer
from tests.kills import end, kill, wait_for_end_of
from tests.question_server import KEPT, WRITTEN, question_server
from tests.runs import run

MakeImages = Callable[..., Path]
FAULTS = ("500", "429", "reset", "malformed", "empty", "400", "cut")
PYTHON = [sys.executable, "-m", "pipeline"]


def recipe(pool: Path, url: str, **settings: Any) -> dict[str, Any]:
    engine = {"kind": "server", "url": url, "concurrency": 16, "pause": 0.01, "timeout": 5, "tries": 2}
    stage = {"stage": "questions", "model": "m", "blind": True, "engine": engine} | settings
    clips = {"stage": "tests.clip_columns:ClipColumns"}
    return {"name": "t", "pool": {"images": str(pool)}, "stages": [clips, stage]}


def stored(url: Path) -> pl.DataFrame:
    return open_run(str(url)).facts("questions").sort("id").collect()


def memories(url: Path) -> list[Path]:
    return list(url.glob("stages/questions-*/answers-*"))


def assert_sound(rows: pl.DataFrame) -> None:
    """Each clip has an error or questions, and each written question is stored or counted."""
    assert (rows["questions"].is_null() == rows["error"].is_not_null()).all()
    done = rows.filter(pl.col("error").is_null())
    assert (done["questions"].list.len() == done["question_count"]).all()
    assert set(done["question_count"]) == {KEPT}
    assert set(done["written_questions"]) == {WRITTEN}
    assert (done["question_count"] - done["blind_questions"] == done["usable_questions"]).all()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("ask", ["text", "frames"])
def test_every_clip_gets_questions_or_error_when_calls_fail(tmp_path: Path, make_images: MakeImages, ask: str) -> None:
    pool, url = make_images(tmp_path / "pool", 60), tmp_path / "run"
    with question_server(faults=FAULTS, share=0.2, broken=0.3) as server:
        opened, jobs = run(recipe(pool, server.url, ask=ask), url)
        rows = stored(url)
        assert rows.height == 60
        assert_sound(rows)
        failed, again = rows.filter(pl.col("error").is_not_null()), rows.filter("retry")
        assert failed.height == jobs["questions"].errors > again.height > 0
        assert again["error"].str.starts_with("blind check: server: ").any()  # with answers in the memory
        assert memories(url)
        before, counts = Counter(server.answered), Counter(server.requests)

        server.share = 0
        opened, jobs = run(recipe(pool, server.url, ask=ask), url)
        assert jobs["questions"].computed == again.height
        assert set(server.answered.values()) == {1}  # nothing that has an answer is asked again
        assert all(server.requests[key] == number for key, number in counts.items() if key in before)
    rows = stored(url)
    assert_sound(rows)
    assert not rows["retry"].any()
    errors = set(rows["error"].drop_nulls())
    assert errors
    assert all(error.startswith(("server: 400 ", "no answer that can be used, asked twice: ")) for error in errors)
    assert memories(url) == []
    assert opened.funnel().survivors + failed_rows(rows) == 60


def failed_rows(rows: pl.DataFrame) -> int:
    return int(rows["error"].is_not_null().sum())


@pytest.mark.usefixtures("here")
def test_server_that_stops_in_a_blind_check_loses_no_answers(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 30), tmp_path / "run"
    with question_server() as server:
        server.raw = lambda key: gone(server, key)
        run(recipe(pool, server.url), url)
        rows = stored(url)
        assert rows["retry"].all()
        assert rows["error"].str.starts_with("blind check: server: 503 ").all()
        server.raw = None
        run(recipe(pool, server.url), url)
        assert set(server.answered.values()) == {1}
    assert_sound(stored(url))
    assert memories(url) == []


def gone(server: ChatServer, key: tuple[str, str]) -> Any:
    """A 503 for the last question of each clip."""
    return (503, {}, b'{"error": "gone"}') if "first act" in server.prompts[key[1]] else None


@pytest.mark.usefixtures("here")
def test_clips_retried_by_hand_are_asked_anew(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    """Broken answers are not taken from the memory: else no attempt could succeed."""
    pool, url = make_images(tmp_path / "pool", 12), tmp_path / "run"
    with question_server() as server:
        good = server.caption
        server.caption = lambda key: "No." if "Clip 5:" in server.prompts[key[1]] else good(key)  # type: ignore[method-assign]
        server.raw = lambda key: gone(server, key) if "player 6?" in server.prompts[key[1]] else None
        run(recipe(pool, server.url), url)
        assert sorted(stored(url)["error"].drop_nulls()) == [
            "blind check: server: 503 gone",
            "no answer that can be used, asked twice: there is no JSON object with questions in it",
        ]
        assert memories(url)  # of the clip whose server failed
        server.caption = good  # type: ignore[method-assign]
        assert vl3syn("retry", url, "questions").returncode == 0
        run(recipe(pool, server.url), url)
        assert stored(url)["error"].drop_nulls().to_list() == ["blind check: server: 503 gone"]
        twice = [server.prompts[key[1]] for key, times in server.answered.items() if times > 1]
    assert len(twice) == 1  # the first prompt; the new answer to it can be used
    assert all("Clip 5:" in prompt for prompt in twice)


@pytest.mark.usefixtures("here")
def test_questions_command_writes_questions_and_its_rules(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    pool, url = make_images(tmp_path / "pool", 6), tmp_path / "run"
    run({"name": "t", "pool": {"images": str(pool)}, "stages": [{"stage": "tests.clip_columns:ClipColumns"}]}, url)
    (tmp_path / "mine.txt").write_text("mood: how it feels\n")
    with question_server() as server:
        options = ("--server", server.url, "--model", "m", "--aspects", f"videollama3,{tmp_path / 'mine.txt'}")
        done = vl3syn("caption", "questions", "--run", url, *options, "--ask", "frames", "--blind", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["funnel"]["survivors"] == 6
        asked = sum(server.requests.values())
        assert asked == 6 * (1 + KEPT)
        assert all("- mood: how it feels" in p for p in server.prompts.values() if p.startswith("You write"))
        again = vl3syn("caption", "questions", "--run", url, "--json")
        assert json.loads(again.stdout)["jobs"][-1]["computed"] == 0
        assert sum(server.requests.values()) == asked
    entry = open_run(str(url)).recipe["stages"][-1]
    assert entry["keep"] == {"min_question_count": 1, "min_usable_questions": 1}
    assert (entry["ask"], entry["blind"], entry["aspects"][-1]) == ("frames", True, {"mood": "how it feels"})
    refused = vl3syn("caption", "questions", "--run", url, "--aspects", "videolama3")
    assert refused.returncode == 1
    assert "did you mean 'videollama3'?" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.usefixtures("here")
def test_clip_without_questions_is_dropped_with_a_reason(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 3), tmp_path / "run"
    with question_server() as server:
        server.caption = lambda key: '{"questions": []}'  # type: ignore[method-assign]
        opened, _ = run(recipe(pool, server.url, keep={"min_question_count": 1}), url)
    assert set(opened.manifest().collect()["drop_reason"]) == {"question_count 0 < 1"}


@pytest.fixture
def paid(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A slow server in a process of its own, and its log."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    log.touch()
    options = ["--port", str(port), "--delay", "0.05", "--log", str(log), "--broken", "0.3"]
    server = subprocess.Popen([sys.executable, "-m", "tests.question_server", *options])
    yield f"http://127.0.0.1:{port}/v1", log
    server.kill()
    server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("victims", [["driver"], ["driver", "driver", "worker"]], ids=["once", "thrice"])
def test_run_killed_while_asking_pays_no_answer_twice(
    tmp_path: Path, make_images: MakeImages, paid: tuple[str, Path], victims: list[str]
) -> None:
    """Only what was on its way at a kill may be asked again: no question of a clip that was half done."""
    import yaml

    url, log = paid
    concurrency, clips = 4, 30 * (1 + len(victims))
    engine = {"kind": "server", "url": url, "concurrency": concurrency, "timeout": 60, "tries": 5}
    written = recipe(make_images(tmp_path / "pool", clips), url, engine=engine)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    command = [*PYTHON, "run", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")]
    dice = random.Random(len(victims))
    for victim in victims:
        mark = f"VL3SYN_TEST={uuid.uuid4().hex}"
        name, _, value = mark.partition("=")
        begun = answered(log)
        driver = subprocess.Popen(
            command, env={**os.environ, name: value}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while answered(log) < begun + 60 and driver.poll() is None:
                time.sleep(0.01)
            time.sleep(dice.random() * 0.2)
            assert kill(victim, driver.pid, mark)
            if victim == "worker":
                assert driver.wait(timeout=240) == 0
            wait_for_end_of(mark)
        finally:
            end(mark)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = stored(tmp_path / "run")
    assert rows.height == clips
    assert_sound(rows)
    times = Counter(line for line in log.read_text().splitlines() if line.startswith("answered"))
    twice = sum(times.values()) - len(times)
    print(f"{twice} answers of {len(times)} were paid for twice in {len(victims)} kills")
    assert twice <= len(victims) * concurrency
    assert memories(tmp_path / "run") == []


def answered(log: Path) -> int:
    return log.read_text().count("answered")
