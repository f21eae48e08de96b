"""A job whose first answers are all one refusal: it ends with the server's words, and nothing of it is stored."""

from __future__ import annotations

import hashlib
import json
import string
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from captioners.recaption import ShortCaption
from core.errors import UserError
from manifests import open_run
from manifests.journal import Journal
from manifests.schemas import column, table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.first_answers import FirstAnswers
from tests.chat_server import ChatServer, chat_server
from tests.pipeline.execution.pipelines import compute_images
from tests.runs import run

MakeImages = Callable[..., Path]
Call = Callable[..., subprocess.CompletedProcess[str]]

CONTEXT = "This model's maximum context length is 4096 tokens. However, you requested {n} tokens ({n} in the messages)."

FIRST = "the first 32 images in a row without an answer, all of them: "


def recipe(pool: Path, server: ChatServer, resources: dict[str, Any] | None = None) -> dict[str, Any]:
    how = {"kind": "server", "url": server.url, "pause": 0.01, "tries": 1}
    stage = {"stage": "short_caption", "model": "m", "engine": how, "resources": resources or {}}
    return {"name": "t", "pool": {"images": str(pool)}, "stages": [stage]}


def captioned(folder: Path, server: ChatServer, **engine: Any) -> pl.DataFrame:
    """The rows of the images in the folder `pool`, in this process."""
    how = {"kind": "server", "url": server.url, "pause": 0.01, "tries": 1} | engine
    stage = ShortCaption(model="m", engine=how)  # type: ignore[arg-type]
    names = sorted(file.name for file in (folder / "pool").iterdir())
    return pl.DataFrame(compute_images(folder, stage, stage.load(), names, first_errors=32))


def written(path: Path, recipe_: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(recipe_))
    return path


def rows(url: Path) -> pl.DataFrame:
    return open_run(url).facts("short_caption").collect()


@pytest.mark.usefixtures("here")
def test_server_that_refuses_all_ends_the_job_with_its_message(
    tmp_path: Path, make_images: MakeImages, vl3syn: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "abcdefgh-123")
    pool, url = make_images(tmp_path / "pool", 100), tmp_path / "run"
    with chat_server(faults=("400",), share=1.0, refusal=f"{CONTEXT} (abcdefgh-123)") as server:
        path = written(tmp_path / "recipe.yaml", recipe(pool, server))
        done = vl3syn("run", path, "--run", url, "--json")
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("vl3syn: ")]
        assert len(said) == 1
        assert said[0].startswith(f"vl3syn: short_caption: {FIRST}server: 400 {CONTEXT.partition('{')[0]}")
        assert "none is stored: fix the server" in said[0]
        assert "abcdefgh-123" not in done.stderr
        assert not open_run(url).stages[0].table.parts()
        server.share = 0.0
        done = vl3syn("caption", "short", "--run", url, "--json")
        assert done.returncode == 0, done.stderr
        job = json.loads(done.stdout)["jobs"][-1]
        assert (job["stage"], job["computed"] + job["stored"], job["errors"]) == ("short_caption", 100, 0)
        assert set(server.answered.values()) == {1}


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        ("400", CONTEXT),
        ("413", "Request Entity Too Large (request id: req_{n}f)"),
        ("400", f"{CONTEXT} (request id: {{letters}})"),
        ("400", "Bad request {letters}"),
        ("402", "Insufficient Balance"),
        ("401", "Incorrect API key"),
        ("503", "loading the model"),
    ],
)
def test_job_of_refusals_only_stores_no_row(tmp_path: Path, make_images: MakeImages, status: str, refusal: str) -> None:
    make_images(tmp_path / "pool", 60)
    with chat_server(faults=(status,), share=1.0, refusal=refusal) as server:
        with pytest.raises(UserError, match=f"^short_caption: {FIRST}server: {status} "):
            captioned(tmp_path, server, concurrency=8)
        # Eight are under way, and as many may be sent before the 32nd answer is looked at. There are 60 images.
        assert 32 <= server.requests.total() <= 32 + 16
    assert journaled(tmp_path) == []


def test_server_with_only_empty_answers_ends_the_job(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "pool", 60)
    thinking = {"message": {"content": "<think>Well, 17 dogs"}, "finish_reason": "length"}
    why = f"{FIRST}empty caption: cut while thinking; raise max_new_tokens"
    with chat_server(choice=thinking) as server, pytest.raises(UserError, match=why):
        captioned(tmp_path, server)
    assert journaled(tmp_path) == []


def test_bad_images_among_the_first_do_not_end_the_job(tmp_path: Path, make_images: MakeImages) -> None:
    """Their refusals are there long before the first caption; images count in the order of asking."""
    make_images(tmp_path / "pool", 100)
    with chat_server(faults=("400",), share=0.6, delay=0.3) as server:
        server.fast_faults = True
        facts = captioned(tmp_path, server, concurrency=16)
        assert set(server.requests.values()) == {1}
    assert (facts.height, facts["retry"].sum()) == (100, 0)
    assert 40 < facts["error"].count() < 80
    assert set(facts["error"].drop_nulls()) == {"server: 400 the image is too strange"}


def test_31_refusals_and_then_captions_are_stored(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "pool", 60)
    with chat_server() as server:
        numbers = iter(range(200))
        server._fault = lambda key, attempt: "400" if next(numbers) < 31 else None  # type: ignore[method-assign]
        facts = captioned(tmp_path, server, concurrency=1)
    assert (facts.height, facts["error"].count(), facts["retry"].sum()) == (60, 31, 0)


def test_fewer_than_32_refused_images_are_retried_later(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 5)
    Image.effect_noise((60, 40), 90).convert("RGB").save(pool / "broken.bmp")
    (pool / "broken.bmp").write_bytes((pool / "broken.bmp").read_bytes()[:-2000])
    with chat_server(faults=("400",), share=1.0, refusal=CONTEXT) as server:
        facts = captioned(tmp_path, server)
    assert facts["error"].count() == 6
    assert sorted(facts["retry"]) == [False, *[True] * 5], "not that of the broken file"


@pytest.mark.usefixtures("here")
def test_first_errors_0_stores_every_refusal(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 70), tmp_path / "run"
    with chat_server(faults=("400",), share=1.0) as server:
        _, jobs = run(recipe(pool, server, resources={"first_errors": 0}), url)
    assert (jobs["short_caption"].errors, rows(url)["retry"].sum()) == (70, 0)


SCHEMA = table_schema(pa.schema([column("x", pa.int32(), "x")]))


def answers(ids: list[int], errors: list[str | None], retry: bool = False) -> pa.Table:
    columns = [
        pa.array(ids),
        pa.nulls(len(ids), pa.int32()),
        pa.array(errors, pa.string()),
        pa.array([retry] * len(ids)),
    ]
    return pa.table(columns, schema=SCHEMA.remove_metadata())


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    table = Table(Folder.at(tmp_path / "table"), SCHEMA.remove_metadata())
    return Journal(table, pa.chunked_array([pa.array(range(200))]), {})


def journaled(folder: Path) -> list[int]:
    ids: list[int] = []
    for path in (folder / "table").glob("journal-*"):
        with pa.OSFile(str(path)) as source:
            try:
                for batch in pa.ipc.open_stream(source):
                    ids += batch["id"].to_pylist()
            except pa.ArrowInvalid:  # it is still being written
                pass
    return ids


def test_nothing_is_journaled_before_an_answer_differs(tmp_path: Path, journal: Journal) -> None:
    first = FirstAnswers("s", 32)
    for n in range(31):
        assert first.take_numbers(1) == n
        first.save(n, answers([n], [f"server: 400 of {n} tokens"]), journal)
    assert journaled(tmp_path) == []
    first.save(first.take_numbers(1), answers([31], [None]), journal)
    assert journaled(tmp_path) == list(range(32))


def test_passing_failure_is_not_a_first_answer(journal: Journal) -> None:
    first = FirstAnswers("s", 4)
    numbers = [first.take_numbers(1) for _ in range(5)]
    for n in numbers[1:4]:
        first.save(n, answers([n], ["server: 400 no"]), journal)
    first.save(0, answers([0], ["server: no whole answer within 5 s"], retry=True), journal)
    with pytest.raises(UserError, match="the first 4 images in a row without an answer, all of them: server: 4"):
        first.save(4, answers([4], ["server: 400 no"]), journal)
    with pytest.raises(UserError):
        first.take_numbers(1)


def test_different_refusal_or_status_confirms_the_server_works(tmp_path: Path, journal: Journal) -> None:
    for other in ("server: 400 the image is too wide", "server: 413 no"):
        first = FirstAnswers("s", 4)
        for n, error in enumerate(["server: 400 no", "server: 400 no", "server: 400 no", other]):
            first.save(first.take_numbers(1), answers([n], [error]), journal)
    assert journaled(tmp_path) == [0, 1, 2, 3] * 2


def letters(number: int) -> str:
    """Return an id of 16 letters, another one for each number, as base62 without a digit is."""
    digest = hashlib.sha256(str(number).encode()).digest()[:16]
    return "".join(string.ascii_letters[byte % 52] for byte in digest)


@pytest.mark.parametrize(
    "error",
    [
        "E{n}: no GPU left",
        "img{n}: no GPU left",
        "no GPU left for {letters}",
        "RuntimeError: worker-{letters}: CUDA out of memory",
        "server: 400 请求参数错误，请求编号：{letters}",
        "server: 400 rejected ({letters})",
    ],
)
def test_errors_that_differ_only_in_ids_end_the_job(error: str, journal: Journal, tmp_path: Path) -> None:
    first = FirstAnswers("s", 8)
    said = [error.replace("{n}", str(n)).replace("{letters}", letters(n)) for n in range(8)]
    for n in range(7):
        first.save(first.take_numbers(1), answers([n], [said[n]]), journal)
    number = first.take_numbers(1)
    with pytest.raises(UserError, match="the first 8 images in a row without an answer"):
        first.save(number, answers([7], [said[7]]), journal)
    assert journaled(tmp_path) == []


def test_two_statuses_with_equal_text_are_two_errors(tmp_path: Path, journal: Journal) -> None:
    first = FirstAnswers("s", 2)
    first.save(first.take_numbers(1), answers([0], ["server: 400 the image is refused"]), journal)
    first.save(first.take_numbers(1), answers([1], ["server: 422 the image is refused"]), journal)
    assert journaled(tmp_path) == [0, 1]


def test_batch_with_one_good_answer_is_stored(tmp_path: Path, journal: Journal) -> None:
    first = FirstAnswers("s", 32)
    first.save(first.take_numbers(40), answers(list(range(40)), [*["no x"] * 39, None]), journal)
    assert journaled(tmp_path) == list(range(40))


def test_block_waits_for_the_first_answers_of_another_block(journal: Journal) -> None:
    """Two are under way at once, and one of them may be short."""
    import threading

    first, refused = FirstAnswers("s", 4), []
    begun, go_on = threading.Event(), threading.Event()

    def long_block() -> None:
        with first.running_block():
            begun.set()
            go_on.wait(10)
            for _ in range(2):
                try:
                    first.save(first.take_numbers(1), answers([9], ["server: 400 no"]), journal)
                except UserError as error:
                    refused.append(error)

    thread = threading.Thread(target=long_block)
    thread.start()
    begun.wait(10)
    rows_ = [answers([n], ["server: 400 no"]) for n in range(2)]
    with first.running_block():
        for part in rows_:
            first.save(first.take_numbers(1), part, journal)
    threading.Timer(0.2, go_on.set).start()
    with pytest.raises(UserError):
        first.resolve_block(rows_)
    thread.join(10)
    assert len(refused) == 1
