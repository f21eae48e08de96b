"""A page with captions beside randomly drawn images, on which people mark what is wrong.

It is the only page with a script. Its policy names the script by its hash, so that no text from the web can become one,
and forbids every connection.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import polars as pl

from core.errors import UserError
from manifests.priorities import priority
from manifests.removals import REMOVED, removals_in
from manifests.review_marks import MARKS
from manifests.run import Run
from manifests.shards import LISTS
from manifests.storage import Folder
from manifests.version import __version__
from pipeline.publishing.publication import SETTINGS, stored_publication
from pipeline.reporting.page import render
from pipeline.reporting.thumbnails import Thumbnail, thumbnails

CAPTIONS = ("short_caption", "detailed_caption", "coarse_caption")
"""Columns that people judge: those that the run has."""

_SIDE, _BUDGET = 480, 48 << 20


@dataclass(frozen=True)
class ReviewRow:
    """One image of the page, with its captions by column."""

    id: int
    key: str
    thumbnail: Thumbnail
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Review:
    """A page of images to mark.

    Attributes:
        name: Name of the run.
        rows: The images, in random order.
        drawn_from: Number of images of which they are drawn.
        seed: Seed of the draw.
    """

    name: str
    rows: tuple[ReviewRow, ...]
    drawn_from: int
    seed: int

    def page(self) -> str:
        """Return the page.

        Raises:
            UserError: A package of the extra `report` is missing.
        """
        from markupsafe import Markup

        script = files("pipeline.reporting").joinpath("templates", "review.js").read_text("utf-8")
        return render(
            "review.html",
            name=self.name,
            version=__version__,
            rows=self.rows,
            drawn_from=self.drawn_from,
            seed=self.seed,
            marks=MARKS,
            script=Markup(script),
            script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        )


def review(run: Run, published: Folder, count: int, seed: int = 0) -> Review:
    """Draw images and read them.

    Args:
        run: The run.
        published: The folder of its publication. If nothing is published there, what the run keeps is drawn from.
        count: Number of images.
        seed: Seed of the draw: the same seed draws the same images.

    Raises:
        UserError: The run has no captions or no such image, or the publication is damaged.
    """
    captions = [column for column in CAPTIONS if column in run.manifest_schema]
    if not captions:
        raise UserError(f"{run.url} has no captions to review: `vl3syn caption` first")
    verdict = run.verdict()
    if published.join(LISTS).exists(SETTINGS):
        drawn_from, why = _published(run, published), f"{published.path} has none of its images"
    else:
        removed = sorted(removals_in(run.folder.join(REMOVED)).ids)
        drawn_from, why = verdict.alive.filter(~pl.col("id").is_in(removed)), "the run keeps none"
    if not drawn_from.height:
        raise UserError(f"{run.url}: no image to review: {why}")
    ids = drawn_from[np.argsort(priority(drawn_from["id"].to_numpy(), seed))[:count]]
    values = run.manifest(["id", "key", *captions], ids, verdict).collect(engine="streaming")
    by_id = {row["id"]: row for row in values.iter_rows(named=True)}
    pictures = thumbnails(run, ids, _SIDE, _BUDGET)
    rows = [
        ReviewRow(
            id=id_,
            key=str(by_id[id_]["key"] or id_),
            thumbnail=pictures[id_],
            texts=tuple((column, by_id[id_][column]) for column in captions if by_id[id_][column]),
        )
        for id_ in ids["id"]
    ]
    return Review(str(run.recipe.get("name") or "run"), tuple(rows), drawn_from.height, seed)


def _published(run: Run, out: Folder) -> pl.DataFrame:
    """Return the images of a publication that the run has, sorted: column `id`."""
    published = stored_publication(out, out.path).published().select("id")
    return published.lazy().join(run.index.scan(["id"]), on="id", how="semi").collect(engine="streaming").sort("id")
