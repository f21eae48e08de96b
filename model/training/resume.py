"""Choose the checkpoint that a stage continues from: the newest valid one, of the same stage and the same data."""

from __future__ import annotations

import logging
from pathlib import Path

from core.errors import UserError
from model.training.checkpoints import DamagedError, State, checkpoints_of, set_aside, verify
from model.training.dist import DistContext
from model.training.stage import reordered

log = logging.getLogger("vl3syn.train")

_RESUMABLE = {"checkpointing", "compile"}  # settings of a stage that may change on resume


def newest_valid(folder: Path, world: DistContext) -> tuple[Path, State] | None:
    """Return the newest valid checkpoint of a stage, or None if there are no checkpoints. Rank 0 reads for all.

    Newer damaged ones are logged in one line and renamed to `damaged-…`.

    Raises:
        UserError: All checkpoints are damaged. Starting again could cost hours, so the user must decide.
    """
    chosen: tuple[Path, State] | None = world.all_gather(_choose(folder) if world.is_main else None)[0]
    return chosen


def _choose(folder: Path) -> tuple[Path, State] | None:
    faults: list[DamagedError] = []
    damaged: list[Path] = []
    for path in reversed(checkpoints_of(folder)):
        try:
            state = verify(path)
        except DamagedError as fault:
            faults.append(fault)
            damaged.append(path)
            continue
        for broken in damaged:
            set_aside(broken)
        if faults:
            log.warning("%s; goes on from %s instead, after step %d", _summary(faults), path.name, state.step)
        return path, state
    if faults:
        raise UserError(f"{_summary(faults)}; no other checkpoint is there: delete {folder} to begin this stage again")
    return None


def _summary(faults: list[DamagedError]) -> str:
    return "; ".join(map(str, faults))


def check_same(path: Path, state: State, now: State) -> None:
    """Check that a checkpoint belongs to the current stage configuration and data.

    Fields that an earlier version did not store are not compared.

    Raises:
        UserError: A setting, the order of its keys, a source's size or a fingerprint differs.
    """
    for key, value in state.stage.items():
        if key not in _RESUMABLE and now.stage.get(key) != value:
            raise UserError(
                f"{path}: was made with {key}: {value}, the recipe says {now.stage.get(key)}: "
                "put it back, or train into another folder"
            )
    if order := reordered(state.stage, now.stage):
        raise UserError(f"{path}: was made with {order}: put it back, or train into another folder")
    for name, rows in state.rows.items():
        if now.rows.get(name, rows) != rows:
            raise UserError(
                f"{path}: source {name} had {rows} samples and has {now.rows[name]}: put back what there was, or "
                "train into another folder"
            )
    for name, fingerprint in state.data.items():
        if now.data.get(name, fingerprint) != fingerprint:
            raise UserError(
                f"{path}: {name} has changed since this stage began: put back what there was, or train into another "
                "folder"
            )
