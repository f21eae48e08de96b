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
from model.training.step_checkpoint import is_step, recipe_of

_LOCATIONS = ("shards", "annotations", "records")  # keys of a source that say where it lies


@dataclass(frozen=True)
class TrainedSource:
    """A source that a checkpoint was trained on.

    Attributes:
        name: Its name in the training recipe.
        held_out: Number of its samples that were held out, or where other samples lie that were held out.
        seed: Seed of the choice of held-out samples.
        part_of: The whole source, if the data are only one of its files: its rows are counted otherwise then.
    """

    name: str
    held_out: int | str
    seed: int
    part_of: str = ""

    def rows(self, source: Source, held_out: bool) -> Sequence[int]:
        """Return the rows that were held out, or the others, ascending.

        Raises:
            UserError: Nothing of the source was held out, or it is known of the whole source only.
        """
        if self.part_of:
            raise UserError(f"of {self.name} one file is given, and samples were held out of all: give {self.part_of}")
        if isinstance(self.held_out, str):
            if held_out:
                raise UserError(f"of {self.name} what is held out lies in {self.held_out}: give --data {self.held_out}")
            return range(source.rows)
        held = set(SourceOrder(source, self.held_out, 0, self.seed, 1).held_out.tolist())
        if held_out and not held:
            raise UserError(f"of {self.name} nothing was held out: leave out --held-out")
        return [row for row in range(source.rows) if (row in held) == held_out]


def trained_source(checkpoint: str | Path, data: SourceConfig) -> TrainedSource | None:
    """Return the source of the checkpoint's training that contains `data`; None if there is none.

    Raises:
        UserError: The file that describes the training is damaged.
    """
    recipe = _recipe_of(Path(checkpoint))
    for name, source in recipe["sources"].items():
        if "kind" in source:  # of another package: its class is not imported
            continue
        path = _absolute(next(source[key] for key in _LOCATIONS if source.get(key)))
        same_caption = not source.get("shards") or (isinstance(data, ShardConfig) and source["caption"] == data.caption)
        if same_caption and f"{_absolute(data.location)}/".startswith(f"{path}/"):
            seed = recipe.get("held_out_seed")  # earlier versions have none, and held out by `seed`
            part_of = path if isinstance(data, RecordConfig) and _is_part(data.records, path) else ""
            return TrainedSource(name, source["held_out"], recipe["seed"] if seed is None else seed, part_of)
    return None


def _is_part(records: str, of: str) -> bool:
    """Return whether a path is one of several files of records in a folder."""
    from manifests.record_files import record_files

    return os.path.isdir(of) and record_files(records) != record_files(of)


def _recipe_of(checkpoint: Path) -> dict[str, Any]:
    """Return the recipe that an export or a step's checkpoint was trained by; one without sources if there is none."""
    if is_step(checkpoint):
        return recipe_of(checkpoint)
    file = checkpoint / PROVENANCE
    if not file.is_file():
        return {"sources": {}}
    with reading(file):
        return dict(json.loads(file.read_text())["recipe"])


def _absolute(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.abspath(path)
