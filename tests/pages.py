"""A run for tests of pages, made without a job: small real images with chosen names, rules, and given captions."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from manifests import Run
from pipeline.execution.job_log import record
from pipeline.execution.job_result import JobResult
from tests.conftest import jpeg
from tests.stored_facts import store_run

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


def page_run(folder: Path, names: Sequence[str] = (), caption: str = "a small picture", captions: int = 25) -> Run:
    """A run over 40 images and a broken file: two rules on scores, one on groups, captions, and the record of a job.

    Args:
        folder: Where pool and run are made.
        names: Names of the first images, without ending.
        caption: The caption of all images that have one.
        captions: Number of images that have one; the others that reach the stage are pending. 0: no such stage.
    """
    pool = folder / "pool"
    pool.mkdir()
    shapes = {}
    for number in range(40):
        key = f"{names[number] if number < len(names) else f'{number:06d}'}.jpg"
        width, height = 30 + number, 30 + number * 7 % 23
        (pool / key).write_bytes(jpeg(width, height, number))
        long, short = max(width, height), min(width, height)
        shapes[key] = {"aspect_ratio": long / short, "side": short, "pixels": long * short}
    (pool / "broken.jpg").write_bytes(b"no image")
    stages = [{"stage": "aspect_ratio", "keep": {"max": 1.5, "min_side": 32, "per_group_format": 24}}]
    facts = {"aspect_ratio": shapes}
    if captions:
        stages.append({"stage": "short_caption", "model": "nobody/none"})
        facts["short_caption"] = {
            key: {"short_caption": f"{caption} {key}", "short_words": 3} for key in list(shapes)[:captions]
        }
    run = store_run(folder / "run", {"name": "pages", "pool": {"images": str(pool)}, "stages": stages}, facts)
    for table in (stage.table for stage in run.stages if stage.name == "short_caption"):
        table.append(table.schema.empty_table(), table.next_writer(), {"weights": "c0ffee" * 8})
    record(run, JobResult(stage="aspect_ratio", computed=40, errors=0, stored=0, seconds=2.5, working=0.5))
    return run


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
