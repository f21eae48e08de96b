"""Workers of one job compute with one model."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from core.errors import UserError
from core.stages import Facts, LoadedStage
from manifests.schemas import column, table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.inputs import Inputs
from pipeline.execution.part_writer import Store
from pipeline.execution.stage_task import StageTask


class Weighed(LoadedStage):
    """A stage whose model is a file that each node has for itself."""

    name: ClassVar = "weighed"
    reads: ClassVar = ("width",)
    writes: ClassVar = pa.schema([column("score", pa.float32(), "of the image")])
    path: str

    def load(self) -> Facts:
        facts = Facts()
        facts.provenance = {"weights": Path(self.path).read_text(), "dtype": "float32"}
        return facts


def test_workers_with_different_weights_are_refused(tmp_path: Path) -> None:
    """They load before a part is stored, so there is nothing yet to compare with."""
    table = Table(Folder.at(tmp_path / "table"), table_schema(Weighed.writes))
    weights = tmp_path / "model"

    def worker(store: Store, content: str) -> None:
        weights.write_text(content)
        stage = Weighed(path=str(weights))
        StageTask(stage=stage, name="score", inputs=Inputs(), batch_size=64, store=store).loaded()

    store = Store(table, table.next_writer(), {})
    worker(store, "a" * 20)
    worker(store, "a" * 20)
    refused = r"score: another worker of this job has weights aaaaaaaaaaaa…, and the one on \S+ has bbbbbbbbbbbb…; rest"
    with pytest.raises(UserError, match=refused):
        worker(store, "b" * 20)
    store.forget_model()
    assert list((tmp_path / "table").iterdir()) == []
    worker(Store(table, table.next_writer(), {}), "b" * 20)  # nothing was stored with the others
