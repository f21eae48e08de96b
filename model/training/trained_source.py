"""Find out which samples of a source a checkpoint was trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError, reading
from model.training.data.records import RecordConfig
from model.training.data.sampler import SourceOrder
from model.training.data.shards import ShardConfig
from model.training.data.source import Source, SourceConfig
from model.training.export import PROVENANCE
from model.training.step_checkpoint import export_before, is_step, recipe_of
from model.training.trained_data import FINGERPRINT, TrainedData

_LOCATIONS = ("shards", "annotations", "records")  # keys of a source that say where it lies


@dataclass(frozen=True)
class TrainedSource:
    """A source that a checkpoint was trained on.

    Attributes:
        name: Its name in the training recipe.
        held_out: Number of its samples that were held out, or where other samples lie that were held out.
        seed: Seed of the choice of held-out samples.
        data: The data that are a part of it, or all.
        trained: What the training knows of its sources.
        part_of: The whole source, if the data are only one of its files: its rows are counted otherwise then.
    """

    name: str
    held_out: int | str
    seed: int
    data: SourceConfig
    trained: TrainedData
    part_of: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the training stored how many samples the source had. Exports of earlier versions did not."""
        return self.name in self.trained.rows

    def rows(self, source: Source, held_out: bool) -> Sequence[int]:
        """Return the rows that were held out, or the others, ascending.

        Raises:
            UserError: Nothing of the source was held out, it is known of the whole source only, or the source has
                changed since.
        """
        if self.part_of:
            raise UserError(f"of {self.name} one file is given, and samples were held out of all: give {self.part_of}")
        if isinstance(self.held_out, str) and held_out:
            raise UserError(f"of {self.name} what is held out lies in {self.held_out}: give --data {self.held_out}")
        self._check_same(source)
        if isinstance(self.held_out, str):
            return range(source.rows)
        held = set(SourceOrder(source, self.held_out, 0, self.seed, 1).held_out.tolist())
        if held_out and not held:
            raise UserError(f"of {self.name} nothing was held out: leave out --held-out")
        return [row for row in range(source.rows) if (row in held) == held_out]

    def _check_same(self, source: Source) -> None:
        name = FINGERPRINT.format(self.name)
        fingerprints = {name: self.data.fingerprint()} if name in self.trained.data else {}
        if change := self.trained.change(TrainedData({self.name: source.rows}, fingerprints), self.name):
            raise UserError(
                f"{self.data.location}: {change} since the training: which samples it held out is not known any more: "
                "put back what there was, or leave out --held-out and --trained-on"
            )


def trained_source(checkpoint: str | Path, data: SourceConfig) -> TrainedSource | None:
    """Return the source of the checkpoint's training that contains `data`; None if there is none.

    Raises:
        UserError: The file that describes the training is damaged.
    """
    recipe, trained = _training_of(Path(checkpoint))
    for name, source in recipe["sources"].items():
        if "kind" in source:  # of another package: its class is not imported
            continue
        path = _absolute(next(source[key] for key in _LOCATIONS if source.get(key)))
        same_caption = not source.get("shards") or (isinstance(data, ShardConfig) and source["caption"] == data.caption)
        if same_caption and f"{_absolute(data.location)}/".startswith(f"{path}/"):
            seed = recipe.get("held_out_seed")  # earlier versions have none, and held out by `seed`
            part_of = path if isinstance(data, RecordConfig) and _is_part(data.records, path) else ""
            seed = recipe["seed"] if seed is None else seed
            if path != _absolute(data.location):  # a part may have a fingerprint of its own
                trained = TrainedData(trained.rows)
            return TrainedSource(name, source["held_out"], seed, data, trained, part_of)
    return None


def _is_part(records: str, of: str) -> bool:
    """Return whether a path is one of several files of records in a folder."""
    from manifests.record_files import record_files

    return os.path.isdir(of) and record_files(records) != record_files(of)


def _training_of(checkpoint: Path) -> tuple[dict[str, Any], TrainedData]:
    """Return the recipe that an export or a step's checkpoint was trained by, and the data of its stages so far.

    Without a training, the recipe has no sources.
    """
    if is_step(checkpoint):
        recipe, file = recipe_of(checkpoint), checkpoint / "state.json"
        before = export_before(checkpoint, recipe)
        with reading(file):
            now = TrainedData.stored(json.loads(file.read_text()))
        return recipe, _training_of(before)[1].then(now) if before else now
    file = checkpoint / PROVENANCE
    if not file.is_file():
        return {"sources": {}}, TrainedData()
    with reading(file):
        provenance = json.loads(file.read_text())
        return dict(provenance["recipe"]), TrainedData.stored(provenance)


def _absolute(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.abspath(path)
