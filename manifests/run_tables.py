"""What the views of a run are computed from. `Run` has it; the funnel, the sweep and explanations ask for no more."""

from __future__ import annotations

from typing import Protocol

import polars as pl

from manifests.tables import Table
from manifests.verdict import StoredStage, Verdict


class RunTables(Protocol):
    """The tables of a run, and its verdict. `Run` is the only one; its methods return the views."""

    @property
    def url(self) -> str:
        """Where the run is, for messages."""
        ...

    @property
    def index(self) -> Table:
        """The index: one row per image of the pool."""
        ...

    @property
    def stages(self) -> tuple[StoredStage, ...]:
        """The stages in the recipe's order."""
        ...

    def verdict(self) -> Verdict:
        """Evaluate the rules for every row."""
        ...

    def manifest(self) -> pl.LazyFrame:
        """Return one row per image, with the verdict."""
        ...
