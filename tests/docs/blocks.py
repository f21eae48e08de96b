"""The code blocks of a Markdown page, and what the comments before them ask for.

    <!-- needs: gpu -->          the block is not run: a small machine lacks this
    <!-- file: recipe.yaml -->   the block is written to this file of the page's folder
    <!-- output -->              the block is what the block before it prints; `…` stands for any text

CONTRIBUTING.md describes them for writers of pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]

WITHOUT_BLOCKS = {"cli.md", "index.md"}
"""Pages of `docs/` with nothing to run: how commands are called, made by a program; and the navigation."""

NEEDS: Mapping[str, str] = {
    "cluster": "a Ray cluster, or a store such as s3://",
    "context": "the code around it",
    "data": "files of your own",
    "demo": "what `make demo` has trained",
    "gpu": "a CUDA device",
    "hub": "models of the Hugging Face hub",
    "network": "other machines",
    "server": "a server that makes captions or answers questions",
    "setup": "an environment, which the command makes or changes",
    "terminal": "somebody who types",
    "time": "minutes",
}
"""What a block may need, and a small machine lacks."""

RUN = {"sh", "python"}
"""Languages that are run."""

SHOWN = {"text", "yaml", "json", "toml"}
"""Languages that are only shown; YAML and JSON are loaded."""


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    line: int
    """Where the code begins, counted from 1."""
    language: str
    code: str
    needs: tuple[str, ...] = ()
    file: str | None = None
    output: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether a test runs it."""
        return self.language in RUN and not self.needs and not self.file


class BadBlockError(Exception):
    """A block that says too little, or something unknown."""


def pages() -> list[Path]:
    """README.md, CONTRIBUTING.md, and the pages that people write."""
    written = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in WITHOUT_BLOCKS]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written]


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
    return list(parse(name, page.read_text()))


def parse(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page's text. A block without a language, or with an unknown comment, raises BadBlockError."""
    comment: Token | None = None
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "html_block":
            comment = token
            continue
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            begins = token.map[0] + (2 if token.type == "fence" else 1)
            before = comment.content if comment and comment.map and comment.map[1] == token.map[0] else ""
            yield _block(page, begins, token, before)
        comment = None


def _block(page: str, line: int, token: Token, comment: str) -> Block:
    where = f"{page}:{line}"
    if token.type == "code_block":
        raise BadBlockError(f"{where}: an indented block: write ``` with a language, one of {_known()}")
    language = token.info.split()[0] if token.info.strip() else ""
    if language not in RUN | SHOWN:
        raise BadBlockError(f"{where}: the language is {language!r}: give one of {_known()}")
    told = _comment(where, comment)
    needs = tuple(word for word in re.split(r"[,\s]+", told.get("needs", "")) if word)
    if unknown := set(needs) - set(NEEDS):
        raise BadBlockError(f"{where}: needs {', '.join(sorted(unknown))}: known are {', '.join(NEEDS)}")
    return Block(page, line, language, token.content, needs, told.get("file"), "output" in told)


def _comment(where: str, comment: str) -> dict[str, str]:
    """`<!-- needs: gpu -->` as {"needs": "gpu"}."""
    told: dict[str, str] = {}
    for text in re.findall(r"<!--\s*(.*?)\s*-->", comment, re.DOTALL):
        key, _, value = text.partition(":")
        if key not in ("needs", "file", "output"):
            raise BadBlockError(f"{where}: <!-- {text} --> before a block: known are needs, file and output")
        told[key] = value.strip()
    return told


def _known() -> str:
    return ", ".join(sorted(RUN | SHOWN))


COMMAND = re.compile(r"^(\$ )?(vl3syn|python3?|pip|make|ray|curl|\.venv/bin/\S+) [a-z./\-]")


def looks_like_command(code: str) -> bool:
    """Whether a shown text begins like something to type: then it belongs in a block that is run."""
    return bool(COMMAND.match(code))
