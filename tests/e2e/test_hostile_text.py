"""File names, alt texts, errors, names of recipes and models that try to be HTML, Markdown or terminal commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from markdown_it import MarkdownIt

from manifests import Run, open_run
from manifests.run import index_table, stage_folder
from manifests.schemas import INDEX, column, table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.publishing.card import card

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]
TERMINAL = "\x1b[31mred\x1b[0m \x9b2J\x07 \u202egpj.exe\u202c zero\u200bwidth"
MARKUP = "<script>alert(1)</script> ![i](http://evil.example/x.png) [l](http://evil.example) | cell | `code` ```"
HOSTILE = f"{MARKUP}\n---\n# {TERMINAL}\n```\n<b>"


def judged_run(folder: Path) -> Run:
    """Two images with hostile names and texts, and a stage that failed on one with a hostile error."""
    base = Folder.at(folder)
    entry = {"stage": "s", "table": "s-0", "keep": {"min_score": 0.5}, "model": HOSTILE, "revision": HOSTILE}
    recipe = {"vl3syn": "test", "name": HOSTILE, "pool": {"images": "/nowhere"}, "stages": [entry]}
    base.write("recipe.yaml", yaml.safe_dump(recipe).encode())
    known = {"id": [1, 2], "shard": [HOSTILE, "b"], "key": ["a", HOSTILE], "alt_text": [HOSTILE, HOSTILE]}
    index = {f.name: known.get(f.name, pa.nulls(2, f.type)) for f in INDEX} | {"retry": [False, False]}
    index_table(base).append(pa.table(index), "000001-a", {"stage": "index"})
    schema = table_schema(pa.schema([column("score", pa.float32(), HOSTILE, 0, 1), column("text", pa.string(), "")]))
    facts = pa.table([[1, 2], [0.9, None], [HOSTILE, None], [None, f"{HOSTILE}: more"], [False, False]], schema=schema)
    Table(stage_folder(base, "s-0"), schema).append(facts, "000001-a", {"stage": "s"})
    return open_run(str(folder))


def is_safe(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_card_shows_hostile_text_as_plain_text(tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run")
    text = card(
        run, {"data": ("short",)}, "parquet", 1, {"score": "The score", HOSTILE: HOSTILE}, {"s": {HOSTILE: HOSTILE}}
    )
    assert is_safe(text)
    empty, front, body = text.split("---\n", 2)
    assert empty == ""
    assert yaml.safe_load(front)["license"] == "other"
    assert yaml.safe_load(front)["pretty_name"].startswith("<script>alert(1)</script> ![i]")

    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(body)
    inline = [child for token in tokens for child in token.children or []]
    assert not [token.type for token in (*tokens, *inline) if "html" in token.type or token.type == "image"]
    links = [token.attrGet("href") for token in inline if token.type == "link_open"]
    assert links == ["https://arxiv.org/abs/2501.13106"]
    headings = [tokens[index + 1].content for index, token in enumerate(tokens) if token.type == "heading_open"]
    assert len(headings) == 8
    fences = [token for token in tokens if token.type == "fence"]
    assert [fence.info for fence in fences] == ["python", "yaml"]
    stages = yaml.safe_load(fences[1].content)["stages"]
    assert stages[0]["keep"] == {"min_score": 0.5}
    rows, cells = [], 0
    for token in tokens:
        if token.type == "tr_open":
            cells = 0
        cells += token.type in ("td_open", "th_open")
        if token.type == "tr_close":
            rows.append(cells)
    assert rows == [2] * 3 + [4] * 3 + [4] * 2 + [5] * 2  # columns, funnel, models, scores: with their heads


@pytest.mark.parametrize("name", ["---", "x ---", "a: b", "- x", "'\"", "\x00", "null", "#", "é猫", "1"])
def test_front_matter_of_the_card_is_valid_yaml(tmp_path: Path, name: str) -> None:
    run = judged_run(tmp_path / "run")
    named = Run(run.url, run.folder, {**run.recipe, "name": name})
    _, front, _ = card(named, {"data": ("short",)}, "parquet", 1, {}, {}).split("---\n", 2)
    assert yaml.safe_load(front)["pretty_name"] == name.replace("\x00", "\ufffd")


@pytest.mark.parametrize(
    "arguments", [("funnel",), ("explain", "1"), ("explain", "2"), ("sweep",), ("groups", "--by", "shard")], ids=str
)
def test_output_of_commands_has_no_terminal_codes(tmp_path: Path, vl3syn: Vl3syn, arguments: tuple[str, ...]) -> None:
    judged_run(tmp_path / "run")
    command, *more = arguments
    shown = vl3syn(command, tmp_path / "run", *more)
    assert shown.returncode == 0, shown.stderr
    assert is_safe(shown.stdout)
    assert is_safe(shown.stderr)


@pytest.mark.parametrize("key", ["1", "2"])
def test_json_output_is_valid_and_printable(tmp_path: Path, vl3syn: Vl3syn, key: str) -> None:
    judged_run(tmp_path / "run")
    shown = vl3syn("explain", tmp_path / "run", key, "--json")
    assert is_safe(shown.stdout)
    (account,) = json.loads(shown.stdout)
    assert account["image"]["alt_text"] == HOSTILE
    assert account["stages"][0]["facts"] == ({"score": pytest.approx(0.9), "text": HOSTILE} if key == "1" else {})


def test_error_is_one_printable_line(tmp_path: Path, vl3syn: Vl3syn) -> None:
    judged_run(tmp_path / "run")
    for arguments in (
        ("explain", tmp_path / "run", f"{HOSTILE}x"),
        ("funnel", tmp_path / TERMINAL),
    ):
        refused = vl3syn(*arguments)
        assert refused.returncode == 1
        assert is_safe(refused.stderr)
        assert len(refused.stderr.splitlines()) == 1


def test_hostile_file_names_pass_index_funnel_and_explain(
    tmp_path: Path, make_images: Callable[[Path, int], Path], vl3syn: Vl3syn
) -> None:
    pool, run = make_images(tmp_path / "pool", 2), tmp_path / "run"
    names = [f"{HOSTILE.replace('/', '')[:120]}{number}.jpg" for number in range(2)]
    for image, name in zip(sorted(pool.iterdir()), names, strict=True):
        image.rename(pool / name)
    (pool / f"{TERMINAL}.jpg").write_text("no image")
    (pool / f"passed over.{TERMINAL}").write_text("no image by its ending, which is told on stderr")
    for command in (("index", "--images", pool, "--run", run), ("funnel", run), ("explain", run, f"{TERMINAL}.jpg")):
        shown = vl3syn(*command)
        assert shown.returncode == 0, shown.stderr
        assert is_safe(shown.stdout + shown.stderr)
    assert set(open_run(run).manifest().collect()["shard"]) == {*names, f"{TERMINAL}.jpg"}  # stored as they are
