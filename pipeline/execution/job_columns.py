"""The columns that a job reads, and where they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from core.stages import IMAGE_INPUTS, MEDIA_INPUTS
from pipeline.recipe import Step, pool_column


@dataclass(frozen=True)
class Columns:
    """Columns that a job reads.

    Attributes:
        names: Their names: columns of tables, `pool.X`, and the inputs of an `ImageStage`.
        tables: The tables of earlier stages that store them, by column; the index stores the others.
        fields: Their Arrow fields, by column.
        stored: The name in its table of each column that has another name there.
        downloaded: The table of the stage that downloaded the images; empty: they are in the pool.
    """

    names: Sequence[str]
    tables: Mapping[str, str]
    fields: Mapping[str, pa.Field]
    stored: Mapping[str, str] = field(default_factory=dict)
    downloaded: str = ""

    @property
    def has_images(self) -> bool:
        """Whether the job reads images."""
        return not set(IMAGE_INPUTS).isdisjoint(self.names)

    @property
    def has_media(self) -> bool:
        """Whether the job reads images or films."""
        return not set(MEDIA_INPUTS).isdisjoint(self.names)

    @property
    def from_pool(self) -> list[str]:
        """The X of each column `pool.X`."""
        return [name for column in self.names if (name := pool_column(column))]

    @property
    def by_table(self) -> dict[str, list[str]]:
        """The columns of tables, by table; "" is the index."""
        grouped: dict[str, list[str]] = {}
        for column in self.names:
            if column != "id" and column not in MEDIA_INPUTS and not pool_column(column):
                grouped.setdefault(self.tables.get(column, ""), []).append(column)
        return grouped


def columns_of(step: Step) -> Columns:
    """Return the columns that a step's stage reads."""
    return Columns(
        names=step.stage.reads,
        tables=step.inputs,
        fields=step.fields,
        stored=step.stored,
        downloaded=step.downloaded,
    )
