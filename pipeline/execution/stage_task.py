"""How a part of a stage is computed, validated and stored."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError
from core.stages import Facts, FittedStage, ImageFacts, ImageStage, LoadedStage, Stage
from manifests.schemas import ERROR, RETRY
from manifests.storage import Folder
from pipeline.execution.fitting import Fitted
from pipeline.execution.inputs import Inputs
from pipeline.execution.part_writer import Store
from pipeline.pools.images import Failure
from pipeline.stages.download.columns import DESCRIBED
from pipeline.stages.download.stage import Download
from pipeline.stages.download.storage import TarStore


@dataclass(frozen=True)
class StageTask:
    """The description of a job: how parts of a stage are computed.

    Attributes:
        stage: The stage.
        name: Its name in the recipe, for errors.
        inputs: Adds the columns that the driver's blocks lack.
        batch_size: Rows per call, at most.
        store: Stores the computed rows.
        contents: Stores lengths and digests of images that were not read before; None if the stage reads no images.
        fitted: The fitted artifact of a trained stage.
        fields: The columns that the stage reads, by name.
        images: The folder of downloaded images, for the stage that downloads them.
    """

    stage: Stage
    name: str
    inputs: Inputs
    batch_size: int
    store: Store
    contents: Store | None = None
    fitted: Fitted | None = None
    fields: Mapping[str, pa.Field] = field(default_factory=dict)
    images: Folder | None = None

    def load(self) -> Facts | ImageFacts:
        """Load the stage's model or fitted artifact.

        Raises:
            UserError: It cannot be loaded.
        """
        if self.fitted:
            assert isinstance(self.stage, FittedStage)
            return self.stage.load_fitted(self.fitted.read(), self.fields)
        if isinstance(self.stage, Download):
            assert self.images is not None
            return self.stage.start(TarStore(self.images, self.store.table.folder))
        assert isinstance(self.stage, LoadedStage | ImageStage)
        facts: Facts | ImageFacts = self.stage.load()
        return facts

    def loaded(self) -> tuple[StageTask, Facts | ImageFacts]:
        """Return the loaded stage, and the task with what only the loaded stage knows, such as the hash of weights.

        Raises:
            UserError: See `load`; or its weights or float type are not those that computed what is stored.
        """
        facts = self.load()
        _check_model(self, facts.provenance)
        return replace(self, store=self.store.knowing(facts.provenance)), facts

    def compute(self, block: pa.Table, facts: Callable[[pa.Table], pa.Table] | None = None) -> pa.Table:
        """Compute one part of a stage that reads columns, store it at once, and return its receipt.

        Args:
            block: The rows.
            facts: The loaded stage; None for a stage that loads nothing.
        """
        begin = time.time()
        compute = facts or self.stage
        if self.images and self.store.has(block["id"]):  # by a worker that died before it could say so
            ((_, receipt),) = self.store.receipts_of([self.store.name_of(block["id"])])
            return receipt
        row_numbers, tables = [], []
        for numbers, rows in self.inputs.complete_by_type(block):
            row_numbers.append(numbers)
            for start in range(0, rows.num_rows, self.batch_size):
                batch = rows.slice(start, self.batch_size)
                computed = validate_output(self.stage, compute(batch.select(list(self.stage.reads))), batch.num_rows)
                tables.append(with_ids(batch["id"], computed))
        in_order = pa.concat_tables(tables).take(np.argsort(np.concatenate(row_numbers)))
        downloaded = DESCRIBED["bytes"] if self.images else None
        bytes_read = (pc.sum(in_order[downloaded]).as_py() or 0) if downloaded else 0
        return self.store(in_order, begin, bytes_read=bytes_read)


def validate_output(stage: Stage, computed: pa.Table, rows: int) -> pa.Table:
    """Validate the output of a stage for `rows` rows; return the columns of its table, without the id.

    Raises:
        TypeError: The output has another number of rows.
    """
    if computed.num_rows != rows:
        raise TypeError(f"{stage.name} made {computed.num_rows} rows of {rows}")
    schema = pa.schema([*stage.writes, ERROR, RETRY])
    if computed.schema.equals(
        schema, check_metadata=True
    ):  # where a batch is one row, the rest would be half of the work
        return computed
    for name, type_, default in (("error", pa.string(), None), ("retry", pa.bool_(), False)):
        if name not in computed.column_names:
            computed = computed.append_column(name, pa.array([default] * rows, type_))
    return computed.select(schema.names).cast(schema)


def with_ids(ids: pa.ChunkedArray, computed: pa.Table) -> pa.Table:
    """Return the table with `ids` as its first column, `id`."""
    return computed.add_column(0, "id", ids)


def failed_rows(stage: Stage, ids: pa.ChunkedArray, failures: Collection[Failure]) -> pa.Table:
    """Return rows without facts, each with its error."""
    columns = {field.name: pa.nulls(len(failures), field.type) for field in stage.writes}
    columns["error"] = pa.array([failure.error for failure in failures], pa.string())
    columns["retry"] = pa.array([failure.retry for failure in failures], pa.bool_())
    return with_ids(ids, validate_output(stage, pa.table(columns), len(failures)))


_MODEL = {
    "weights": ("weights", "restore them, or give the new ones a path of their own"),
    "dtype": ("float type", "run it where it is that one, or compute all rows anew in another run"),
}
"""What all facts of a table share of their model: a key of the provenance, what it is, and what to do about another."""


def _check_model(task: StageTask, provenance: Mapping[str, object]) -> None:
    """Refuse to store facts in a table whose facts were computed with other weights, or in another float type.

    Before the first part is stored, the workers of a job compare with the one of them that was first: each may have
    found other files under the same path, or another commit in its cache.
    """
    model = {key: provenance[key] for key in _MODEL if provenance.get(key)}
    for key, now in model.items():
        before = task.store.table.recorded(key)
        if before and before != now:
            computed = f"what is stored was computed with {_MODEL[key][0]} {_short(before)}, not {_short(now)}"
            raise UserError(f"{task.name}: {computed}; {_MODEL[key][1]}")
    first = task.store.claim_model(model) if model else model
    for key, now in model.items():
        if first.get(key) != now:
            others = f"another worker of this job has {_MODEL[key][0]} {_short(first.get(key))}"
            here = f"the one on {platform.node()} has {_short(now)}"
            raise UserError(f"{task.name}: {others}, and {here}; {_MODEL[key][1]}")


def _short(value: object) -> str:
    """Return a value of the provenance; of a hash, its start."""
    text = str(value)
    return text if len(text) <= 12 else f"{text[:12]}…"
