"""Each block of the pages is run by `make test-docs`, or says what it needs that a small machine lacks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from pipeline.recipe import parse_recipe
from tests.docs.blocks import NEEDS, ROOT, BadBlockError, Block, blocks, looks_like_command, pages, parse

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
FENCE = "```"


def one(text: str) -> Block:
    (block,) = parse("page.md", text)
    return block


@PAGES
def test_blocks_have_a_language_and_known_needs(page: Path) -> None:
    blocks(page)


@PAGES
def test_commands_are_in_blocks_that_are_run(page: Path) -> None:
    shown = [str(block) for block in blocks(page) if block.language == "text" and looks_like_command(block.code)]
    assert shown == [], "write ```sh, with <!-- needs: … --> before it if it cannot be run here"


@PAGES
def test_yaml_and_json_blocks_load(page: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml":
            loaded = yaml.safe_load(block.code)
            if isinstance(loaded, dict) and {"pool", "stages"} <= set(loaded) and not block.file:
                parse_recipe(loaded, str(block))
        if block.language == "json":
            for line in block.code.splitlines():
                json.loads(line)


def test_pages_are_run_for_the_most_part() -> None:
    """A need is for what cannot be run, not for what nobody has tried."""
    runnable = [block for page in pages() for block in blocks(page) if block.language in ("sh", "python")]
    assert sum(block.is_run for block in runnable) > 0.5 * len(runnable)


def test_needs_are_the_documented_ones() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text.split("What may be needed:")[1], re.MULTILINE)
    assert dict(rows) == dict(NEEDS)


def test_block_without_marks_is_run() -> None:
    block = one(f"text\n\n{FENCE}sh\nvl3syn doctor\n{FENCE}\n")
    assert (block.line, block.code, block.is_run) == (4, "vl3syn doctor\n", True)


def test_needs_before_a_block_keep_it_from_being_run() -> None:
    block = one(f"<!-- needs: gpu, hub -->\n{FENCE}sh\nvl3syn doctor\n{FENCE}\n")
    assert (block.needs, block.is_run) == (("gpu", "hub"), False)


def test_comment_that_is_not_right_before_a_block_is_none() -> None:
    assert one(f"<!-- needs: gpu -->\n\ntext\n\n{FENCE}sh\nls\n{FENCE}\n").is_run


def test_file_and_output_are_read() -> None:
    text = f"<!-- file: a.yaml -->\n{FENCE}yaml\na: 1\n{FENCE}\n\n<!-- output -->\n{FENCE}text\n1\n{FENCE}\n"
    file, output = parse("page.md", text)
    assert (file.file, file.output, output.file, output.output) == ("a.yaml", False, None, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("    vl3syn doctor\n", "an indented block"),
        (f"{FENCE}\nls\n{FENCE}\n", "the language is ''"),
        (f"{FENCE}cobol\nls\n{FENCE}\n", "the language is 'cobol'"),
        (f"<!-- needs: luck -->\n{FENCE}sh\nls\n{FENCE}\n", "needs luck"),
        (f"<!-- skip -->\n{FENCE}sh\nls\n{FENCE}\n", "<!-- skip -->"),
    ],
)
def test_block_that_says_too_little_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadBlockError, match=re.escape(message)):
        one(text)


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("vl3syn run a.yaml --run RUN\n", True),
        ("$ make demo\n", True),
        ("vl3syn: RUN: its index is not finished\n", False),
        ("172 rows, 77 survive (44.8%)\n", False),
    ],
)
def test_text_that_is_a_command_is_recognised(code: str, command: bool) -> None:
    assert looks_like_command(code) == command
