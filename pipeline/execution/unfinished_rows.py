"""What a journaled stage keeps of rows whose part is not stored: journals, and the memory of answers."""

from __future__ import annotations

import polars as pl

from core.stages import ImageStage
from manifests.answer_memory import delete_answers, has_answers
from manifests.contents import contents_table
from manifests.journal import recover
from manifests.run import Run
from manifests.tables import Table
from pipeline.execution.planner import unstored
from pipeline.recipe import Step


def recover_journals(run: Run, step: Step, table: Table) -> None:
    """Store the rows that an ended job of the stage has left in journals."""
    if step.stage.journaled:
        recover(table, step.stage.outdated)
        if isinstance(step.stage, ImageStage):
            recover(contents_table(run.folder))


def forget_answers(step: Step, table: Table, alive: pl.DataFrame) -> None:
    """Delete the stage's memory of answers if no row of `alive` (column `id`, sorted) is left that may need them."""
    if step.stage.journaled and alive.height and has_answers(table.folder) and not unstored(table, alive).height:
        delete_answers(table.folder)
