"""Choices: which images a gallery shows, before any image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from manifests.priorities import priority
from manifests.run import Run
from manifests.verdict import Verdict
from pipeline.pools.registry import noun_of


@dataclass(frozen=True)
class Choice:
    """The images of one gallery.

    Attributes:
        title: Its title.
        note: A sentence about it; may be empty.
        ids: The images, in order.
        columns: The columns that its tiles show.
        labels: A word about an image, by id.
    """

    title: str
    ids: Sequence[int]
    note: str = ""
    columns: Sequence[str] = ()
    labels: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChoiceGroup:
    """Galleries that belong together.

    Attributes:
        title: Their title.
        note: A sentence about them; may be empty.
        choices: The galleries.
        stage, rule: The stage's name and the rule's full name (`min_aesthetic`) that they are about; may be empty.
    """

    title: str
    choices: Sequence[Choice]
    note: str = ""
    stage: str = ""
    rule: str = ""


@dataclass(frozen=True)
class Seen:
    """A run as galleries look at it.

    Attributes:
        run: The run.
        verdict: Where every row ended.
    """

    run: Run
    verdict: Verdict

    @property
    def noun(self) -> str:
        """What a row of the run is: `image`, `film` or `clip`."""
        return noun_of(self.run)

    @property
    def ids(self) -> pl.LazyFrame:
        """Column `id` of all rows. Tables may have facts of others, which the index does not have any more."""
        return pl.concat([self.verdict.alive.select("id"), self.verdict.left.select("id")]).lazy()

    def reached(self, rows: pl.LazyFrame, stage: int, cause: int = 0) -> pl.LazyFrame:
        """Return those of `rows` that reached a rule: `cause` of stage number `stage`, as `Verdict.left` counts them.

        Returns:
            The rows with the column `passed`: whether they did not leave there.
        """
        left = self.verdict.left.lazy().select("id", left_stage=pl.col("stage"), left_cause=pl.col("cause"))
        earlier = (pl.col("left_stage") < stage) | ((pl.col("left_stage") == stage) & (pl.col("left_cause") < cause))
        here = (pl.col("left_stage") == stage) & (pl.col("left_cause") == cause)
        known = rows.join(self.ids, on="id", how="semi").join(left, on="id", how="left")
        reached = known.filter(~earlier.fill_null(False)).with_columns(passed=~here.fill_null(False))
        return reached.drop("left_stage", "left_cause")


def mixed(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows in an order that only depends on their ids, like a random one: neighbours in a pool are alike."""
    return rows[np.argsort(priority(rows["id"].to_numpy()))]
