"""Runs for tests of pages, made without Ray: small real images with chosen names, rules, and captions as stored."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import yaml

from manifests import Run, open_run
from manifests.run import stage_folder
from manifests.schemas import column, table_schema
from manifests.tables import Table
from tests.conftest import jpeg
from tests.runs import run_here

HOSTILE_NAMES = (
    '"><img src=x onerror=alert(1)>',
    "<script>alert(1)<script>",
    "'\"<style><b>",
    "\u202egpj.exe\u202c\u200b",
    "{{ 7 * 7 }} {% raw %} ]]> &lt;",
)
"""Names of files that try to be HTML, a template or a change of direction."""

HOSTILE_TEXT = (
    "</style></script><script>alert(1)</script> <img src=http://evil.example/x onerror=alert(2)> \x1b[31m\u202e"
)
"""A caption that tries the same; 100 kB of it must not make a page long."""


def page_run(folder: Path, names: Sequence[str] = (), caption: str = "a small picture", captions: int = 12) -> Run:
    """A run over 40 images and a broken file: two rules on scores, one on groups, and some captions.

    Args:
        folder: Where pool and run are made.
        names: Names of the first images, without ending.
        caption: The caption of all images that have one.
        captions: Number of images that have a caption; the others of those that reach the stage are pending.
    """
    pool = folder / "pool"
    pool.mkdir()
    for number in range(40):
        name = names[number] if number < len(names) else f"{number:06d}"
        (pool / f"{name}.jpg").write_bytes(jpeg(30 + number, 30 + number * 7 % 23, number))
    (pool / "broken.jpg").write_bytes(b"no image")
    keep = {"max": 1.5, "min_side": 32, "per_group_format": 24}
    stages = [{"stage": "aspect_ratio", "keep": keep}]
    run, _ = run_here({"name": "pages", "pool": {"images": str(pool)}, "stages": stages}, folder / "run")
    return with_captions(run, caption, captions) if captions else run


def with_captions(run: Run, caption: str, count: int) -> Run:
    """Add a stage of captions to a run, of which `count` are stored."""
    entry = {"stage": "short_caption", "model": "nobody/none", "keep": {}, "table": "short_caption-00000000"}
    recipe = {**run.recipe, "stages": [*run.recipe["stages"], entry]}
    ids = run.verdict().alive["id"].head(count)
    schema = table_schema(pa.schema([column("short_caption", pa.string(), "A caption")]))
    captions = [f"{caption} {number}" for number in range(count)]
    nothing, good = pa.nulls(count, pa.string()), pa.array([False] * count)
    rows = pa.table([ids.to_arrow(), pa.array(captions), nothing, good], schema=schema)
    table = Table(stage_folder(run.folder, entry["table"]), schema)
    table.append(rows, table.next_writer(), {"stage": "short_caption", "weights": "c0ffee" * 8})
    run.folder.write("recipe.yaml", yaml.safe_dump(recipe, sort_keys=False).encode())
    return open_run(run.url)


class Page(HTMLParser):
    """What a browser would see of a page.

    Attributes:
        tags: Names of the elements.
        attributes: `(element, attribute, value)`.
        texts: The texts between elements, without the style sheet.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.style = ""
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.style += data
        else:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def text(self) -> str:
        """All texts, with single spaces."""
        return " ".join(" ".join(self.texts).split())
