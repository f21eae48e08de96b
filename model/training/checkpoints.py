"""Checkpoints of a running stage: everything that the next step depends on. Each is written atomically.

    OUT/1-encoder/step-00000100/
      weights.safetensors   trained parameters, fp32, by name; frozen ones keep the values of the stage's start
      moments.safetensors   AdamW's moments `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`, and torch's RNG state
      state.json            step, state of each virtual rank, the stage's configuration, fingerprints of the data,
                            SHA-256 of the files and of itself

Nothing depends on the number of workers. No pickles. resume.py chooses the checkpoint to continue from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import UserError
from model.training.data.virtual_rank import VirtualRankState
from model.training.dist import DistContext, assign, gathered
from model.weights_io import readable_by_umask, storing

_DAMAGED = "damaged-"
_FILES = ("weights.safetensors", "moments.safetensors")
_NAME = re.compile(r"step-(\d{8})")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")

_KEYS = {"consumed_samples": "given", "virtual_ranks": "lanes"}
"""Keys of state.json that are not the field's name."""

Named = dict[str, nn.Parameter]


@dataclass(frozen=True)
class State:
    """The contents of state.json, where two fields have other names (`_KEYS`).

    `stage`, `rows` and `data` are compared on resume. Earlier versions did not store `data`, `files` and `sha256`.

    Attributes:
        step: Number of steps that are done.
        consumed_samples: Number of consumed samples.
        virtual_ranks: State of each virtual rank of the loader, by its number.
        stage: The stage's configuration.
        rows: Number of samples of each source; the order of samples depends on it.
        data: Fingerprints of the training data, by name.
        files: SHA-256 of the other files, by name.
        sha256: SHA-256 of all fields above.
    """

    step: int
    consumed_samples: int
    virtual_ranks: dict[int, VirtualRankState]
    stage: dict[str, Any]
    rows: dict[str, int]
    data: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    sha256: str = ""


class DamagedError(UserError):
    """A checkpoint whose bytes differ from those that were written."""


def save(folder: Path, learning: Named, optimizer: torch.optim.Optimizer, state: State, world: DistContext) -> None:
    """Write a checkpoint into a stage's folder. All ranks must call this; rank 0 writes.

    Raises:
        UserError: The system refuses the write, such as to a full disk.
    """
    from safetensors.torch import save_file

    weights = dict(gathered(learning, world))
    moments = dict(_moments(learning, optimizer, world))
    if world.is_main:
        moments["rng"] = torch.get_rng_state()
        if world.device.type == "cuda":
            moments["cuda_rng"] = torch.cuda.get_rng_state(world.device)
        aside = folder / f".step-{state.step:08d}.partial"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        with storing(aside):
            save_file(weights, aside / "weights.safetensors")
            save_file(moments, aside / "moments.safetensors")
        readable_by_umask(aside)
        entries = {_KEYS.get(name, name): value for name, value in vars(state).items()}
        # JSON turns keys into strings; hash what will be read.
        written = json.loads(json.dumps({**entries, "files": checksums(aside, _FILES)}))
        (aside / "state.json").write_text(json.dumps({**written, "sha256": _own_sum(written)}))
        commit(aside, folder / f"step-{state.step:08d}")
    world.barrier()


def commit(aside: Path, target: Path) -> None:
    """Sync the files of a temporary folder to disk, then rename it to its final name."""
    for file in aside.rglob("*"):
        if file.is_file():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
    shutil.rmtree(target, ignore_errors=True)
    os.replace(aside, target)


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files, by name."""
    digests = {}
    for name in names:
        with open(folder / name, "rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _own_sum(state: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in state.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checkpoints_of(folder: Path) -> list[Path]:
    """Return a stage's checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def retain(folder: Path, keep: int) -> None:
    """Delete all but the last `keep` checkpoints; with 0 also those that were set aside as damaged."""
    for path in checkpoints_of(folder)[: -keep or None]:
        shutil.rmtree(path)
    for path in [] if keep else folder.glob(f"{_DAMAGED}*"):
        shutil.rmtree(path)


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that `retain` does not count it and no resume reads it again."""
    aside = path.with_name(_DAMAGED + path.name)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)


def verify(path: Path) -> State:
    """Read a checkpoint's state, and check that all of its files are as they were written.

    Checkpoints of earlier versions have no checksums: only missing or truncated files are detected.

    Raises:
        DamagedError: A file is damaged; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        stored = json.loads((path / "state.json").read_text())
        virtual_ranks = {int(number): position for number, position in stored["lanes"].items()}
        others = {key: value for key, value in stored.items() if key not in _KEYS.values()}
        state = State(**others, consumed_samples=stored["given"], virtual_ranks=virtual_ranks)
        if state.sha256 != (_own_sum(stored) if "sha256" in stored else ""):
            raise UserError("not as it was written")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path}: state.json is damaged ({_reason(error)})") from error
    for name in _FILES:
        try:
            if not state.files:
                with safe_open(path / name, framework="pt"):
                    continue
            if checksums(path, [name])[name] != state.files.get(name):
                raise UserError("not as it was written")
        except (OSError, ValueError, SafetensorError) as error:
            raise DamagedError(f"{path}: {name} is damaged ({_reason(error)})") from error
    return state


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def restore(path: Path, learning: Named, optimizer: torch.optim.Optimizer, world: DistContext) -> None:
    """Restore weights, moments and the RNG state from a verified checkpoint.

    Raises:
        UserError: Checkpoint and recipe train different parameters.
    """
    from safetensors.torch import load_file

    weights, moments = (load_file(path / name) for name in _FILES)
    if weights.keys() != learning.keys():
        differing = min(weights.keys() ^ learning.keys())
        raise UserError(f"{path}: {differing} learns in only one of checkpoint and recipe: begin in another folder")
    for name, parameter in learning.items():
        assign(parameter, weights[name])
        if f"step.{name}" in moments:
            optimizer.state[parameter] = _moment(parameter, {key: moments[f"{key}.{name}"] for key in _MOMENTS})
    if (key := "cuda_rng") in moments and world.device.type == "cuda":
        torch.cuda.set_rng_state(moments[key], world.device)
    torch.set_rng_state(moments["rng"])


def _moment(parameter: nn.Parameter, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
    for key, target in moments.items():
        assign(target, stored[key])
    # A fused AdamW counts steps on the parameter's device, the plain one on the CPU.
    step = stored["step"].to(parameter.device) if parameter.device.type == "cuda" else stored["step"]
    return {"step": step, **moments}


def _moments(learning: Named, optimizer: torch.optim.Optimizer, world: DistContext) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in learning.items():
        if parameter in optimizer.state:
            stored = {f"{key}.{name}": optimizer.state[parameter][key] for key in _MOMENTS}
            yield from gathered(stored, world)
