"""Captions by a server, through the runner: every image ends with a caption or a reason, and is paid for once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
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
from PIL import Image

from captioners.recaption import ShortCaption, default_rules
from manifests import open_run
from manifests.storage import Folder
from tests.chat_server import ChatServer, chat_server
from tests.conftest import jpeg
from tests.kills import end, kill, processes, wait_for_end_of
from tests.pipeline.execution.pipelines import compute_images
from tests.runs import run, run_here, run_stages_on_ray

MakeImages = Callable[..., Path]
FAULTS = ("500", "429", "hang", "reset", "malformed", "empty", "400", "cut")
PYTHON = [sys.executable, "-m", "pipeline"]


def recipe(pool: Path, url: str, **settings: Any) -> dict[str, Any]:
    engine = {"kind": "server", "url": url, "concurrency": 16, "pause": 0.01, "timeout": 2, "tries": 2}
    stage = {"stage": "short_caption", "model": "m", "prompts": ["What is it?"], "engine": engine} | settings
    return {"name": "t", "pool": {"images": str(pool)}, "stages": [{"stage": "aspect_ratio"}, stage]}


@pytest.fixture(scope="module")
def twenty(engine: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pool of 20 images, and a run with their captions."""
    folder = tmp_path_factory.mktemp("twenty")
    (folder / "pool").mkdir()
    for number in range(20):
        (folder / f"pool/{number:02}.jpg").write_bytes(jpeg(40, 30, number))
    with chat_server() as server:
        run_here(recipe(folder / "pool", server.url), folder / "run")
        assert sum(server.requests.values()) == 20
    return folder / "pool", folder / "run"


@pytest.mark.usefixtures("here")
def test_every_image_gets_a_caption_or_error_when_calls_fail(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 200), tmp_path / "run"
    with chat_server(faults=FAULTS, share=0.2) as server:
        opened, jobs = run(recipe(pool, server.url), url)
        rows = opened.facts("short_caption").collect()
        assert rows.height == 200
        assert (rows["short_caption"].is_not_null() ^ rows["error"].is_not_null()).all()
        failed, again = rows.filter(pl.col("error").is_not_null()), rows.filter("retry")
        assert failed.height == jobs["short_caption"].errors > again.height > 0  # of 2 tries, and those of 400
        assert set(server.answered.values()) == {1}
        before = Counter(server.requests)

        server.share = 0
        opened, jobs = run(recipe(pool, server.url), url)
        assert jobs["short_caption"].computed == again.height
        asked_now = Counter(server.requests) - before
        assert sum(asked_now.values()) == again.height
        assert set(server.answered.values()) == {1}
        left = opened.facts("short_caption").filter(pl.col("error").is_not_null()).collect()
        assert set(left["error"]) == {"server: 400 the image is too strange"}


@pytest.mark.usefixtures("here")
def test_only_a_changed_prompt_captions_again(tmp_path: Path, twenty: tuple[Path, Path]) -> None:
    pool, url = twenty[0], shutil.copytree(twenty[1], tmp_path / "run")
    with chat_server() as other:
        (tmp_path / "p.txt").write_text("# the same, from a file\n\nWhat is it?\n")
        _, jobs = run(recipe(pool, other.url, prompts=str(tmp_path / "p.txt")), url)  # and another server
        assert jobs["short_caption"].computed == 0
        _, jobs = run(recipe(pool, other.url, prompts=["What is that?"]), url)
        assert (jobs["short_caption"].computed, sum(other.requests.values())) == (20, 20)


@pytest.mark.thorough
@pytest.mark.usefixtures("engine")
def test_server_that_stops_ends_the_run_without_losing_captions(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 300), tmp_path / "run"
    with chat_server(faults=("500",), share=0) as server:
        stop_after(server, 40)
        with pytest.raises(
            ValueError, match=r"short_caption: 1\d+ images in a row without an answer, the last one: s"
        ) as error:
            run_stages_on_ray(recipe(pool, server.url), url)
        time.sleep(1)  # for what was under way
        paid = dict(server.answered)
        assert 40 <= len(paid) <= 40 + 2 * 16
        server.share = 0
        server.delay = 0
        # With all of the CPUs, so that it would wait for ever for an actor that the failure still holds.
        opened, _ = run(recipe(pool, server.url, resources={"num_cpus": 2}), url)
        assert set(server.answered.values()) == {1}
        assert opened.facts("short_caption").filter(pl.col("error").is_null()).collect().height == 300
    assert "run again when the server is well" in str(error.value)


def stop_after(server: ChatServer, answers: int) -> None:
    """From then on every request fails."""
    import threading

    def watch() -> None:
        while sum(server.answered.values()) < answers:
            time.sleep(0.002)
        server.share = 1.0

    server.delay = 0.01
    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.usefixtures("engine")
def test_server_started_by_the_recipe_ends_after_the_stage(tmp_path: Path, make_images: MakeImages) -> None:
    log = tmp_path / "log"
    start = f"{sys.executable} -m tests.chat_server --port {{port}} --log {log}"
    pool = make_images(tmp_path / "pool", 30)
    opened, _ = run_stages_on_ray(recipe(pool, "", engine={"kind": "server", "start": start}), tmp_path / "run")
    assert opened.facts("short_caption").collect()["short_caption"].is_not_null().all()
    assert answered(log) == 30
    deadline = time.monotonic() + 20
    while running := [pid for pid, command in processes("") if f"--log {log}" in command]:
        assert time.monotonic() < deadline, f"{running} still run"
        time.sleep(0.1)


def test_portable_images_are_sent_unchanged(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    picture = Image.effect_noise((60, 40), 90).convert("RGB")
    picture.save(pool / "plain.jpg")
    picture.save(pool / "plain.png")
    picture.save(pool / "plain.webp")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(pool / "turned.jpg", exif=turned)
    picture.convert("CMYK").save(pool / "cmyk.jpg")
    glass = picture.convert("RGBA")
    glass.putalpha(0)
    glass.save(pool / "glass.png")
    picture.resize((300, 200)).save(pool / "large.png")
    picture.save(pool / "other.bmp")
    files = {hashlib.sha256(f.read_bytes()).hexdigest(): f.name for f in pool.iterdir()}
    with chat_server() as server:
        stage = ShortCaption(model="m", engine={"kind": "server", "url": server.url}, longest=100)  # type: ignore[arg-type]
        compute_images(tmp_path, stage, stage.load(), sorted(files.values()))
        sent = dict(server.images)
    assert sorted(files[h] for h in sent if h in files) == ["plain.jpg", "plain.png", "plain.webp"]
    anew = [Image.open(io.BytesIO(data)) for h, data in sent.items() if h not in files]
    assert {(image.format, image.mode) for image in anew} == {("JPEG", "RGB")}
    assert sorted(image.size for image in anew) == [(40, 60), (60, 40), (60, 40), (60, 40), (100, 67)]
    white = [image for image in anew if image.size == (60, 40) and image.convert("L").getextrema()[0] > 250]
    assert len(white) == 1  # the glass


@pytest.mark.usefixtures("here")
def test_unsound_captions_are_dropped_with_their_reasons(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 4)
    texts = iter(
        ["I'm sorry, I can't help with that.", "red red red red red red red red", "Ein Hund.", "A red dog runs."]
    )
    with chat_server() as server:
        server.caption = lambda key: next(texts)  # type: ignore[method-assign]
        one_by_one = {"kind": "server", "url": server.url, "concurrency": 1}
        opened, _ = run(recipe(pool, server.url, engine=one_by_one, keep=default_rules("short")), tmp_path / "run")
    reasons = sorted(filter(None, opened.manifest().collect()["drop_reason"]))
    assert [reason.split(" ")[0] for reason in reasons] == ["short_language", "short_refused", "short_repetition"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("written", [7, 20])
def test_restarted_part_takes_the_rows_of_its_journal(
    written: int, tmp_path: Path, twenty: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Ray runs the part of a killed actor again: nothing is recovered first, since it is the same job."""
    from manifests.journal import Journal
    from manifests.tables import Table

    url = shutil.copytree(twenty[1], tmp_path / "run")
    monkeypatch.setattr("pipeline.execution.unfinished_rows.recover", lambda *of: 0)
    before = open_run(url).facts("short_caption").sort("id").collect()
    stored = open_run(url).stages[1].table
    (part,) = stored.parts()
    rows = stored.read(part, stored.schema.names)
    stored.folder.delete(part)
    table = Table(stored.folder, stored.schema.remove_metadata())
    journal = Journal(table, rows["id"], {})
    journal.append(rows.slice(0, written))
    with chat_server() as server:
        opened, jobs = run(recipe(twenty[0], server.url), url)
        assert jobs["short_caption"].computed == 20
        assert sum(server.requests.values()) == 20 - written
    assert opened.facts("short_caption").sort("id").collect().equals(before)


@pytest.mark.usefixtures("here")
def test_caption_command_writes_captions_and_its_recipe(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    pool, url = make_images(tmp_path / "pool", 12), tmp_path / "run"
    run({"name": "t", "pool": {"images": str(pool)}, "stages": []}, url)
    (tmp_path / "p.txt").write_text("What is it?\n\nWhat else is it?\n")
    with chat_server() as server:
        options = ("--server", server.url, "--model", "m", "--prompts", tmp_path / "p.txt", "--concurrency", 2)
        done = vl3syn("caption", "short", "--run", url, *options, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["funnel"]["survivors"] == 12
        assert server.most <= 2
        assert len({prompt for _, prompt in server.requests}) == 2
    entry = open_run(url).recipe["stages"][-1]
    assert entry["keep"] == default_rules("short")  # what is no caption does not stay
    assert entry["prompts"] == ["What is it?", "What else is it?"]
    moved = vl3syn("caption", "short", "--run", url, "--server", "http://127.0.0.1:9/v1", "--json")
    assert json.loads(moved.stdout)["jobs"][-1]["computed"] == 0  # nothing to ask, so nobody is missed
    for wrong, said in (
        (("caption", "short", "--run", url, "--server", "http://x/v1", "--engine", "lmdeploy"), "give one of --server"),
        (("caption", "short", "--run", url, "--engine", "vllm"), "--engine vllm: give lmdeploy or transformers"),
        (("publish", "--run", url, "--subset", "detailed"), "the run has no detailed captions: `vl3syn caption detail"),
    ):
        refused = vl3syn(*wrong)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


@pytest.fixture
def paid(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A slow server in a process of its own, and its log."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-m", "tests.chat_server", "--port", str(port), "--delay", "0.1", "--log", str(log)]
    server = subprocess.Popen(command)
    yield f"http://127.0.0.1:{port}/v1", log
    server.kill()
    server.wait()


@pytest.mark.slow
def test_run_killed_while_captioning_loses_and_repeats_nothing(
    tmp_path: Path, make_images: MakeImages, paid: tuple[str, Path]
) -> None:
    kill_and_resume(tmp_path, make_images, paid, ["driver"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_run_killed_ten_times_while_captioning_loses_nothing(
    tmp_path: Path, make_images: MakeImages, paid: tuple[str, Path]
) -> None:
    kill_and_resume(tmp_path, make_images, paid, [*["driver", "raylet"] * 4, "driver", "worker"])


def kill_and_resume(tmp_path: Path, make_images: MakeImages, paid: tuple[str, Path], victims: list[str]) -> None:
    """Of the captions that the server has given, only those may be asked for again that were on their way at a kill."""
    import yaml

    url, log = paid
    concurrency, kills = 4, len(victims)
    written = recipe(make_images(tmp_path / "pool", 100 * kills), url)
    written["stages"][1]["engine"] |= {"concurrency": concurrency, "timeout": 60, "tries": 5}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    command = [*PYTHON, "run", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")]
    dice = random.Random(kills)
    for victim in victims:
        mark = f"VL3SYN_TEST={uuid.uuid4().hex}"
        name, _, value = mark.partition("=")
        environment = {**os.environ, name: value}
        begun = answered(log)
        driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while answered(log) < begun + 30 and driver.poll() is None:
                time.sleep(0.01)
            time.sleep(dice.random() * 0.2)
            assert kill(victim, driver.pid, mark)
            if victim == "worker":  # Ray begins its part once more, from what the journal has, and goes on
                assert driver.wait(timeout=240) == 0
            wait_for_end_of(mark)
        finally:
            end(mark)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    facts = open_run(tmp_path / "run").facts("short_caption").collect()
    assert facts["id"].is_unique().all()
    assert facts["short_caption"].is_not_null().sum() == 100 * kills
    times = Counter(line for line in log.read_text().splitlines() if line.startswith("answered"))
    assert len(times) == 100 * kills
    twice = sum(times.values()) - len(times)
    print(f"{twice} captions of {len(times)} were paid for twice in {kills} kills")
    assert twice <= kills * concurrency
    table = open_run(tmp_path / "run").stages[1].table.folder
    assert not [f for f in Folder.at(table.path).files() if "journal" in f.base_name]


def answered(log: Path) -> int:
    return log.read_text().count("answered")


@pytest.mark.slow
def test_transformers_serve_captions_photographs(tmp_path: Path, photographs: list[Path], tiny_internvl: Path) -> None:
    """A server that we have not written, over HTTP, with a small model of InternVL's own classes."""
    pool = tmp_path / "pool"
    pool.mkdir()
    for photograph in photographs:
        shutil.copy(photograph, pool)
    program = Path(sys.executable).with_name("transformers")
    start = f"{program} serve {{model}} --host 127.0.0.1 --port {{port}} --device cpu"
    engine = {"kind": "server", "start": start, "concurrency": 4}
    stage = {"stage": "detailed_caption", "model": str(tiny_internvl), "engine": engine, "max_new_tokens": 12}
    written = tmp_path / "recipe.yaml"
    written.write_text(json.dumps({"pool": {"images": str(pool)}, "stages": [{"stage": "aspect_ratio"}, stage]}))
    command = [*PYTHON, "run", str(written), "--run", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    facts = open_run(tmp_path / "run").facts("detailed_caption").collect()
    assert facts["detailed_caption"].is_not_null().all()
    assert facts["detailed_caption"].n_unique() > 0.8 * len(photographs)
    assert facts["detailed_tokens"].max() == 12
    assert facts["detailed_prompt_tokens"].min() > 20
