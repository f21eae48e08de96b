"""What servers answer, by a user's commands: what is stored and published is a caption or a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from captioners.recaption import ShortCaption, default_rules
from core.errors import UserError
from manifests import Run, funnel, open_run
from manifests.journal import Journal
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.failed import mark
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe import parse_recipe
from pipeline.recipe_file import Publish
from tests.chat_server import Raw, chat_server
from tests.conftest import jpeg
from tests.runs import run

MakeImages = Callable[..., Path]
WORDS = "A red square lies on a grey table beside a small green cup."
THOUGHT = "The user wants a caption of the picture. Let me count the corners first."
REASONED = f"<think>\n{THOUGHT}\n</think>\n\n{WORDS}<|im_end|>\x00"

# Of `parse_recipe` at commit 7891fd6. A setting that came later must not change them.
TABLES = {
    "aspect_ratio": "bfd49c55",
    "clip": "5a285df8",
    "aesthetic": "06215cf1",
    "coarse_caption": "0e50aeb2",
    "clip_text": "6c8211d5",
    "similarity": "7609a0ea",
    "clusters": "9a147a89",
    "duplicates": "0df21d61",
    "short_caption": "e5f5c9cd",
    "detailed_caption": "c3b4730a",
}
NEEDED = {"clip": {"encoder": "ViT-L-14/openai"}, "clip_text": {"encoder": "ViT-L-14/openai"}}
NEEDED |= {"clusters": {"clusters": 10}}
OF_A_SERVER = {"stage": "short_caption", "model": "m", "prompts": ["What is it?"], "language": "de"}
OF_A_SERVER |= {"engine": {"kind": "server", "url": "http://x/v1"}, "max_new_tokens": 12}


def tables(stages: list[dict[str, Any]]) -> dict[str, str]:
    steps = parse_recipe({"name": "t", "pool": {"images": "/x"}, "stages": stages}, "t").steps
    return {step.stage.name: step.table.rpartition("-")[2] for step in steps}


def test_default_settings_keep_their_earlier_fingerprints() -> None:
    assert tables([{"stage": "hashes"}, *({"stage": n, **NEEDED.get(n, {})} for n in TABLES)]) == {
        "hashes": "bfd49c55",
        **TABLES,
    }
    assert tables([OF_A_SERVER]) == {"short_caption": "83e88305"}


@pytest.mark.parametrize("setting", [{"strip": False}, {"end_tokens": ["###"]}, {"reasoning_tags": ["musing"]}])
def test_newer_setting_changes_the_fingerprint_unless_default(setting: dict[str, Any]) -> None:
    assert tables([{**OF_A_SERVER, **setting}]) != {"short_caption": "83e88305"}
    defaults = {"strip": True, "end_tokens": [], "reasoning_tags": []}
    assert tables([{**OF_A_SERVER, **defaults}]) == {"short_caption": "83e88305"}


def message(content: Any, **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **more}}


def recipe(pool: Path, url: str, **settings: Any) -> dict[str, Any]:
    engine = {"kind": "server", "url": url, "concurrency": 4, "pause": 0.01, "timeout": 20, "tries": 2}
    stage = {"stage": "short_caption", "model": "m", "prompts": ["What is it?"], "engine": engine}
    return {"name": "t", "pool": {"images": str(pool)}, "stages": [stage | settings]}


@pytest.mark.usefixtures("here")
def test_reasoning_and_end_tokens_are_not_published(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    pool, url = make_images(tmp_path / "pool", 3), tmp_path / "run"
    with chat_server(choice=message(REASONED)) as server:
        written = {**recipe(pool, server.url, keep=default_rules("short")), "publish": {}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
        done = vl3syn("run", tmp_path / "recipe.yaml", "--run", url)
    assert done.returncode == 0, done.stderr
    shard = pl.read_parquet(url / "shards" / "data" / "*.parquet")
    assert shard["short_caption"].to_list() == [WORDS] * 3
    assert [turns[1]["value"] for turns in shard["conversations"]] == [WORDS] * 3
    assert shard["short_raw_characters"].to_list() == [len(REASONED)] * 3
    assert shard["short_words"].to_list() == [13] * 3
    assert shard["short_cut"].to_list() == [0] * 3


HALF = "A red square lies on a"
ENDINGS = {  # finish reason -> short_cut, or the error and whether it is worth another try
    "abort": ("server: the answer broke off (finish_reason abort)", True),
    "error": ("server: the answer broke off (finish_reason error)", True),
    "content_filter": 1,
    "tool_calls": 1,
    "length": 1,
    "made_up": 1,
    None: 1,
    "stop": 0,
    "eos_token": 0,
}


@pytest.mark.usefixtures("here")
def test_broken_off_answers_are_not_published(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    """One image for each finish reason."""
    pool, url = make_images(tmp_path / "pool", len(ENDINGS)), tmp_path / "run"
    reason_of: dict[str, Any] = {}
    reasons = iter(ENDINGS)
    with chat_server() as server:

        def caption(key: tuple[str, str]) -> str:
            if key[0] not in reason_of:
                reason_of[key[0]] = next(reasons)
            server.choice = {"finish_reason": reason_of[key[0]]}
            return f"{HALF} {key[0]}"

        server.caption = caption  # type: ignore[method-assign]
        written = recipe(pool, server.url, keep={"max_short_cut": 0})
        written["stages"][0]["engine"]["concurrency"] = 1
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**written, "publish": {}}))
        done = vl3syn("run", tmp_path / "recipe.yaml", "--run", url)
        assert done.returncode == 0, done.stderr
    published = pl.read_parquet(url / "shards" / "data" / "*.parquet")["short_caption"]
    whole = sorted(f"{HALF} {image}" for image, reason in reason_of.items() if ENDINGS[reason] == 0)
    assert sorted(published) == whole
    rows = open_run(url).facts("short_caption").collect()
    stored = {
        text.rpartition(" ")[2]: cut for text, cut in rows.select("short_caption", "short_cut").drop_nulls().rows()
    }
    assert stored == {image: ENDINGS[reason] for image, reason in reason_of.items() if type(ENDINGS[reason]) is int}
    failed = rows.filter(pl.col("error").is_not_null()).select("error", "retry").rows()
    assert sorted(failed) == sorted(ending for ending in ENDINGS.values() if isinstance(ending, tuple))


def as_raw(choice: Any, status: int = 200, headers: dict[str, str] | None = None, **more: Any) -> Raw:
    return status, headers or {}, json.dumps({"choices": [choice], **more}).encode()


ODD_ANSWERS: list[tuple[Raw | None, str | None, bool]] = [  # with the row's error, and whether it is tried again
    (as_raw(message(f"{WORDS} \ud83d") | {"finish_reason": "stop"}), None, False),
    (as_raw(message([WORDS]) | {"finish_reason": "stop"}, usage=[300, 14]), None, False),
    (as_raw(message(WORDS) | {"finish_reason": "stop"}, usage={"completion_tokens": 1 << 40}), None, False),
    (as_raw(message("") | {"finish_reason": "\ud83d"}), "server: the answer broke off (finish_reason null)", True),
    (as_raw(None), "server: malformed answer (choices[0] is no object)", True),
    (as_raw(None, error="no \ud83d memory"), "server: no memory", True),
    ((520, {}, b""), "server: 520", True),
    (
        (503, {"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, b""),
        "server: 503 Service Unavailable",
        True,
    ),
    (
        (200, {"Set-Cookie": "\xff=\xfe"}, b""),
        "server: malformed answer (JSONDecodeError: Expecting value: line 1 column 1 (char 0))",
        True,
    ),
]


@pytest.mark.usefixtures("here")
def test_malformed_answers_do_not_end_a_run(tmp_path: Path, make_images: MakeImages, vl3syn: Any) -> None:
    """One image for each, and as many with sound answers."""
    pool, url = make_images(tmp_path / "pool", 2 * len(ODD_ANSWERS)), tmp_path / "run"
    with chat_server() as server:
        waiting = iter([odd for raw, _, _ in ODD_ANSWERS for odd in (raw, None)])
        raw_of: dict[str, Raw | None] = {}

        def raw(key: tuple[str, str]) -> Raw | None:
            if key[0] not in raw_of:
                raw_of[key[0]] = next(waiting)
            return raw_of[key[0]]

        server.raw = raw
        written = recipe(pool, server.url)
        written["stages"][0]["engine"] |= {"concurrency": 1, "tries": 1}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
        done = vl3syn("run", tmp_path / "recipe.yaml", "--run", url, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["jobs"][-1]["computed"] == 2 * len(ODD_ANSWERS)
    rows = open_run(url).facts("short_caption").collect()
    failed = rows.filter(pl.col("short_caption").is_null()).select("error", "retry").rows()
    assert sorted(failed) == sorted((error, retry) for _, error, retry in ODD_ANSWERS if error)
    assert rows.filter(pl.col("short_caption") == WORDS).height == 3
    assert rows.height == 2 * len(ODD_ANSWERS)


CUT_WHILE_THINKING = (
    "empty caption: cut while thinking; raise max_new_tokens, or have the model answer without reasoning"
)
ENDED_AFTER_REASONING = "empty caption: the model ended it after its reasoning, before its first word"
IN_PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}]


def caption_of(choice: dict[str, Any], more: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The row of one image, without a run; `more` stands beside the answer's choices."""
    with chat_server(choice=choice, more=more or {}) as server:
        engine = {"kind": "server", "url": server.url, "tries": 2, "pause": 0.01}
        captioner = ShortCaption(model="m", engine=engine, **settings).load()  # type: ignore[arg-type]
        row: dict[str, Any] = captioner([captioner.prepare(jpeg(8, 8), 0)]).to_pylist()[0]
    return row


@pytest.mark.parametrize(
    ("content", "more", "finish", "error"),
    [
        (None, {"reasoning_content": THOUGHT}, "length", CUT_WHILE_THINKING),
        (None, {"reasoning": THOUGHT}, "length", CUT_WHILE_THINKING),
        (f"<think>{THOUGHT}", {}, "length", CUT_WHILE_THINKING),
        (f"<think>{THOUGHT}", {}, "stop", CUT_WHILE_THINKING),
        (IN_PARTS, {}, "length", CUT_WHILE_THINKING),
        ("", {"reasoning_content": THOUGHT}, "stop", ENDED_AFTER_REASONING),
        (f"<think>{THOUGHT}</think>", {}, "stop", ENDED_AFTER_REASONING),
        ("", {}, "length", "empty caption: cut before its first word"),
        ("<|im_end|>", {}, "stop", "empty caption: the model ended it before its first word"),
        (None, {}, "stop", "empty caption: the model ended it before its first word"),
        (" ", {}, "length", "empty caption: cut before its first word"),
        ("\u200b\u200b", {}, "stop", "empty caption: the model ended it before its first word"),
        ("\u202a\u202c\u2066\u2069\u00ad\u2060", {}, "length", "empty caption: cut before its first word"),
        ("\ufe0f \u0301", {}, "stop", "empty caption: the model ended it before its first word"),
        ("<think>A</think>\u200b", {}, "stop", ENDED_AFTER_REASONING),
        ("", {"refusal": ""}, "stop", "empty caption: the model ended it before its first word"),
        (None, {"refusal": None}, "stop", "empty caption: the model ended it before its first word"),
    ],
)
def test_answer_without_a_caption_has_its_error(content: Any, more: dict[str, Any], finish: str, error: str) -> None:
    row = caption_of({**message(content, **more), "finish_reason": finish})
    assert (row["short_caption"], row["error"], row["retry"]) == (None, error, False)
    assert row["short_raw_characters"] == (len(content) if isinstance(content, str) else 0)


def test_caption_is_read_beside_reasoning_in_parts_or_texts() -> None:
    parts = [*IN_PARTS, {"type": "text", "text": WORDS}]
    for choice in (message(WORDS, reasoning_content=THOUGHT), message(parts), message([WORDS])):
        row = caption_of(choice)
        assert (row["short_caption"], row["short_cut"], row["error"]) == (WORDS, 0, None)


HARMONY = "<|start|>assistant<|channel|>{}<|message|>{}"


@pytest.mark.parametrize(
    "choice",
    [
        message(f"<answer>{WORDS}</answer>", reasoning_content=THOUGHT),
        message(f"<|begin_of_box|>{WORDS}<|end_of_box|>", reasoning_content=THOUGHT),
        message(f"<think>{THOUGHT}</think>{WORDS}</think>"),
        message(f"{HARMONY.format('analysis', THOUGHT)}<|end|>{HARMONY.format('final', WORDS)}<|return|>"),
        message([{"type": "text", "text": THOUGHT, "thought": True}, {"type": "text", "text": {"value": WORDS}}]),
        {**message(WORDS), "finish_reason": {"type": "stop", "matched": 151645}},
        {**message(WORDS), "finish_reason": "FinishReason.STOP"},
    ],
)
def test_answers_of_many_servers_are_read(choice: dict[str, Any]) -> None:
    row = caption_of(choice)
    assert (row["short_caption"], row["short_cut"], row["error"]) == (WORDS, 0, None)


def test_reasoning_counted_only_in_usage_is_an_error() -> None:
    usage = {"completion_tokens": 96, "completion_tokens_details": {"reasoning_tokens": 96}}
    row = caption_of({**message(""), "finish_reason": "length"}, {"usage": usage})
    assert (row["error"], row["retry"], row["short_tokens"]) == (CUT_WHILE_THINKING, False, 96)


@pytest.mark.parametrize("content", [" ", "\0", "\n\x0b", "\u200b", None])
def test_answer_without_text_and_reason_is_broken_off(content: str | None) -> None:
    row = caption_of({**message(content), "finish_reason": None})
    assert (row["error"], row["retry"]) == ("server: the answer broke off (finish_reason null)", True)


NO = "The people here are private."


@pytest.mark.parametrize(
    ("choice", "cut"),
    [
        ({**message(None, refusal=NO), "finish_reason": "stop"}, 0),
        ({**message("", refusal=NO), "finish_reason": "content_filter"}, 1),
        ({**message([{"type": "refusal", "refusal": NO}]), "finish_reason": "stop"}, 0),
    ],
)
def test_refusal_field_is_stored_as_a_refusal(choice: dict[str, Any], cut: int) -> None:
    row = caption_of(choice)
    assert (row["short_caption"], row["short_refused"], row["short_cut"], row["error"]) == (NO, 1, cut, None)
    assert caption_of(message(WORDS, refusal=None))["short_refused"] == 0
    assert caption_of(message(WORDS, refusal=NO))["short_caption"] == WORDS


@pytest.mark.parametrize("text", ["👩\u200d🚀", "ا\u200fب", "Ein Bild.\u200b", "7", "…"])
def test_invisible_character_of_a_caption_is_kept(text: str) -> None:
    assert caption_of(message(text))["short_caption"] == text


def test_message_without_content_is_an_empty_answer() -> None:
    row = caption_of({"message": {"role": "assistant"}, "finish_reason": "length"})
    assert (row["error"], row["retry"]) == ("empty caption: cut before its first word", False)


@pytest.mark.parametrize(
    "more",
    [
        {"error": {"message": "out of memory", "code": 500}, "choices": None},
        {"error": {"message": "out of memory"}},
        {"error": "out of memory"},
        {"object": "error", "message": "out of memory", "choices": []},
    ],
)
def test_error_inside_an_answer_of_status_200_is_an_error(more: dict[str, Any]) -> None:
    row = caption_of(message("A red"), more)
    assert (row["short_caption"], row["error"], row["retry"]) == (None, "server: out of memory", True)
    assert caption_of(message(WORDS), {"error": None, "object": "chat.completion"})["short_caption"] == WORDS


def test_stage_without_stripping_removes_control_characters_only() -> None:
    assert caption_of(message(REASONED), strip=False)["short_caption"] == REASONED.removesuffix("\x00")
    assert caption_of(message(f"{WORDS}### and"), end_tokens=["###"])["short_caption"] == WORDS


@pytest.fixture(scope="module")
def four(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool of 4 images, and a run with their captions."""
    folder = tmp_path_factory.mktemp("four")
    (folder / "pool").mkdir()
    for number in range(4):
        (folder / f"pool/{number:06}.jpg").write_bytes(jpeg(40, 30, number))
    with chat_server(choice=message(WORDS)) as server:
        run(recipe(folder / "pool", server.url), folder / "run")
    return folder


def as_an_earlier_version(opened: Run, captions: list[str]) -> None:
    """Make the stored captions those, in a part without the columns that came later."""
    table = opened.stages[0].table
    (part,) = table.parts()
    path = f"{table.folder.path}/{part}"
    rows = pq.read_table(path)
    rows = rows.set_column(1, rows.schema.field("short_caption"), pa.array(captions))
    metadata = {name: value for name, value in (rows.schema.metadata or {}).items() if name != b"vl3syn.layout"}
    later = ["short_raw_characters", "short_control_tokens"]
    pq.write_table(rows.drop_columns(later).replace_schema_metadata(metadata), path)


@pytest.mark.usefixtures("here")
def test_only_stored_captions_with_reasoning_are_computed_again(tmp_path: Path, four: Path, vl3syn: Any) -> None:
    pool, url = four / "pool", shutil.copytree(four / "run", tmp_path / "run")
    with chat_server(choice=message(WORDS)) as server:
        old = ["A <think> mug, an <EOS> lens.", REASONED, "An old\r\ncat [sic].", f"{WORDS}</s>"]
        as_an_earlier_version(open_run(url), old)
        done = vl3syn("publish", "--run", url)
        assert done.returncode == 0, done.stderr
        assert "not published: 2 images with outdated captions" in done.stderr
        shards = str(url / "shards" / "data" / "*.parquet")
        assert set(pl.read_parquet(shards)["short_caption"]) == {old[0], old[2]}
        _, jobs = run(recipe(pool, server.url), url)
        assert jobs["short_caption"].computed == sum(server.requests.values()) == 2
        opened, jobs = run(recipe(pool, server.url), url)
        assert jobs["short_caption"].computed == 0
    rows = opened.manifest().collect()
    assert sorted(rows["short_caption"]) == sorted([old[0], old[2], WORDS, WORDS])
    raw = dict(rows.select("short_caption", "short_raw_characters").rows())
    assert raw == {old[0]: None, old[2]: None, WORDS: len(WORDS)}
    publish(opened, recipe_of(opened), Publish(), Folder.at(url / "shards"), "out")
    published = pl.read_parquet(shards)  # all shards have the columns of the first
    assert sorted(published["short_caption"]) == sorted([old[0], old[2], WORDS, WORDS])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("retried", [False, True])
def test_outdated_captions_are_paid_once_in_spite_of_a_kill(tmp_path: Path, four: Path, retried: bool) -> None:
    """The journal is what a killed run has left: two of three outdated captions are computed again."""
    pool, url = four / "pool", shutil.copytree(four / "run", tmp_path / "run")
    with chat_server(choice=message(WORDS)) as server:
        opened = open_run(url)
        table = opened.stages[0].table
        again = table.read(table.parts()[0], table.schema.names).slice(0, 3)
        as_an_earlier_version(opened, [REASONED, f"{WORDS}</s>", REASONED, "An old cat."])
        Journal(Table(table.folder, table.schema.remove_metadata()), again["id"], {}).append(again.slice(0, 2))
        if retried:
            with pytest.raises(UserError, match="no failed rows"):
                mark(open_run(url), "short_caption")
        opened, jobs = run(recipe(pool, server.url), url)
        assert (jobs["short_caption"].computed, server.requests.total()) == (1, 1)
    captions = opened.facts("short_caption").collect()["short_caption"]
    assert sorted(captions) == [WORDS, WORDS, WORDS, "An old cat."]
    assert [file.base_name for file in table.folder.files() if "journal" in file.base_name] == []


@pytest.mark.usefixtures("here")
def test_rule_on_a_column_missing_in_stored_rows_drops_them(tmp_path: Path, four: Path) -> None:
    pool, url = four / "pool", shutil.copytree(four / "run", tmp_path / "run")
    with chat_server(choice=message(WORDS)) as server:
        as_an_earlier_version(open_run(url), ["a", "b", "c", "d"])
        opened, jobs = run(recipe(pool, server.url, keep={"min_short_raw_characters": 1}), url)
        assert jobs["short_caption"].computed == 0
        assert funnel(opened).survivors == 0
        assert set(opened.manifest().collect()["drop_reason"]) == {"short_raw_characters is missing"}
        opened, _ = run(recipe(pool, server.url, keep=default_rules("short")), url)
        assert opened.manifest().collect()["short_raw_characters"].to_list() == [None] * 4


@pytest.mark.usefixtures("here")
def test_journal_of_an_earlier_version_is_stored_as_it_is(tmp_path: Path, four: Path) -> None:
    pool, url = four / "pool", shutil.copytree(four / "run", tmp_path / "run")
    with chat_server(choice=message(WORDS)) as server:
        stored = open_run(url).stages[0].table
        (part,) = stored.parts()
        rows = stored.read(part, stored.schema.names)
        stored.folder.delete(part)
        later = ("short_raw_characters", "short_control_tokens")
        older = pa.schema([field for field in stored.schema if field.name not in later])
        Journal(Table(stored.folder, older), rows["id"], {}).append(rows.select(older.names).slice(0, 3))
        opened, _ = run(recipe(pool, server.url), url)
        assert sum(server.requests.values()) == 1
    facts = opened.facts("short_caption").collect()
    assert facts["short_caption"].to_list() == [WORDS] * 4
    assert sorted(facts["short_raw_characters"].to_list(), key=str) == [len(WORDS), None, None, None]
    assert facts["short_control_tokens"].to_list() == [0, 0, 0, 0]


@pytest.mark.usefixtures("here")
def test_publication_of_an_earlier_version_keeps_its_columns(
    tmp_path: Path, four: Path, make_images: MakeImages
) -> None:
    shutil.copytree(four, tmp_path, dirs_exist_ok=True)
    pool, url, out = tmp_path / "pool", tmp_path / "run", tmp_path / "out"
    text = (url / "recipe.yaml").read_text()
    (url / "recipe.yaml").write_text(text.replace(str(four), str(tmp_path)))
    with chat_server(choice=message(WORDS)) as server:
        opened = open_run(url)
        as_an_earlier_version(opened, ["An old dog.", "An old cat.", "An old cow.", "An old hen."])
        publish(opened, recipe_of(opened), Publish(), Folder.at(out), "out")
        make_images(pool, 2, start=4)
        opened, _ = run(recipe(pool, server.url), url)
        done = publish(opened, recipe_of(opened), Publish(), Folder.at(out), "out")
    assert done.rows == 6
    shards = sorted((out / "data").iterdir())
    assert pq.read_schema(shards[0]).names == pq.read_schema(shards[1]).names
    assert "short_raw_characters" not in pq.read_schema(shards[1]).names
