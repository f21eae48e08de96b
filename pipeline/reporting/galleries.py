"""Galleries: chosen images of a run as tiles. All images of a page are read together, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl

from manifests.run import Run
from manifests.verdict import Verdict
from pipeline.reporting.caption_choices import caption_choices
from pipeline.reporting.choice import Choice, ChoiceGroup, Seen
from pipeline.reporting.duplicate_choices import duplicate_choices
from pipeline.reporting.error_choices import error_choices
from pipeline.reporting.group_choices import group_choices
from pipeline.reporting.rule_choices import rule_choices
from pipeline.reporting.thumbnails import BUDGET, SIDE, thumbnails
from pipeline.reporting.tiles import DESCRIBED_BY, READ, Tile, tile


@dataclass(frozen=True)
class Gallery:
    """Images with a title and a note, which may be empty."""

    title: str
    note: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class GalleryGroup:
    """Galleries that belong together.

    Attributes:
        title: Their title.
        note: A sentence about them; may be empty.
        galleries: The galleries.
        stage, rule: The stage's name and the rule's full name (`min_aesthetic`) that they are about; may be empty.
    """

    title: str
    note: str
    galleries: tuple[Gallery, ...]
    stage: str = ""
    rule: str = ""


@dataclass(frozen=True)
class Galleries:
    """All galleries of a report; a group without images is left out.

    Attributes:
        rules: For each rule that compares a score: best, borderline kept and dropped, worst.
        duplicates: Images next to those that they duplicate, or with which they share a value such as `content_hash`.
        groups: Clusters and other groups of balance rules: some images that the rule keeps and drops.
        captions: For each caption: longest, shortest, random and flagged ones, beside their image.
        errors: For the index and each stage: an example of each error.
    """

    rules: tuple[GalleryGroup, ...]
    duplicates: tuple[GalleryGroup, ...]
    groups: tuple[GalleryGroup, ...]
    captions: tuple[GalleryGroup, ...]
    errors: tuple[GalleryGroup, ...]


def galleries(run: Run, verdict: Verdict | None = None, side: int = SIDE, budget: int = BUDGET) -> Galleries:
    """Choose the images of a report, read them once, and return its galleries.

    Args:
        run: The run.
        verdict: The result of `run.verdict()`, if it is computed already.
        side: Longer side of a thumbnail in pixels.
        budget: Bytes of all thumbnails, at most; as text in a page they take a third more.

    Raises:
        UserError: A part of a table is damaged.
    """
    seen = Seen(run, verdict or run.verdict())
    chosen = (
        rule_choices(seen),
        [*duplicate_choices(seen), *group_choices(seen, single=True)],
        group_choices(seen, single=False),
        caption_choices(seen),
        error_choices(seen),
    )
    choices = [choice for groups in chosen for group in groups for choice in group.choices]
    filled = iter(fill(seen, choices, side, budget))
    return Galleries(*(tuple(_filled(group, filled) for group in groups) for groups in chosen))


def _filled(group: ChoiceGroup, filled: Iterator[Gallery]) -> GalleryGroup:
    of_group = tuple(islice(filled, len(group.choices)))
    return GalleryGroup(group.title, group.note, of_group, group.stage, group.rule)


def fill(seen: Seen, choices: Sequence[Choice], side: int = SIDE, budget: int = BUDGET) -> list[Gallery]:
    """Read the chosen images and their columns, and return a gallery for each choice.

    Args:
        seen: The run.
        choices: The images.
        side, budget: As in `galleries`.
    """
    ids = pl.DataFrame({"id": list(dict.fromkeys(id_ for choice in choices for id_ in choice.ids))}, {"id": pl.Int64})
    rows = _rows(seen, ids, [column for choice in choices for column in choice.columns])
    pictures = thumbnails(seen.run, ids, side, budget)
    return [
        Gallery(
            choice.title,
            choice.note,
            tuple(tile(rows[i], pictures[i], choice.columns, choice.labels.get(i, "")) for i in choice.ids),
        )
        for choice in choices
    ]


def _rows(seen: Seen, ids: pl.DataFrame, columns: Sequence[str]) -> Mapping[int, dict[str, object]]:
    """Return the columns of tiles, by id."""
    described = [name for name in DESCRIBED_BY if name in seen.run.manifest_schema]
    names = list(dict.fromkeys([*READ, *described, *columns]))
    rows = seen.run.manifest(names, ids, seen.verdict).collect(engine="streaming")
    return {row["id"]: row for row in rows.iter_rows(named=True)}
