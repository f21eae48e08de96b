"""Checkpoints of a stage that is under way: everything that the next step depends on, whole or not there at all.

    OUT/1-encoder/step-00000100/
      weights.safetensors   parameters that learn, fp32, by name; frozen ones are those that the stage began with
      moments.safetensors   AdamW's, as `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`; and the state of torch's RNG
      state.json            step, where each lane of the loader stands, the stage as it was configured

All of it is independent of the number of workers. No pickles.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.training.world import World, assign, whole

_NAME = re.compile(r"step-(\d{8})")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")

Named = dict[str, nn.Parameter]


@dataclass(frozen=True)
class State:
    """What is no tensor.

    Attributes:
        step: Steps that are done.
        given: Samples that have been given out.
        lanes: State of each lane of the loader.
        stage: The stage's configuration, to be compared.
        rows: Of each source, to be compared: with others the order is another.
    """

    step: int
    given: int
    lanes: dict[int, dict[str, Any]]
    stage: dict[str, Any]
    rows: dict[str, int]


def save(folder: Path, learning: Named, optimizer: torch.optim.Optimizer, state: State, world: World) -> None:
    """Write a checkpoint into a stage's folder; all workers call it, the first one writes."""
    from safetensors.torch import save_file

    weights = dict(_gathered(learning, world))
    moments = dict(_moments(learning, optimizer, world))
    if world.leads:
        moments["rng"] = torch.get_rng_state()
        if world.device.type == "cuda":
            moments["cuda_rng"] = torch.cuda.get_rng_state(world.device)
        aside = folder / f".step-{state.step:08d}.partial"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file(weights, aside / "weights.safetensors")
        save_file(moments, aside / "moments.safetensors")
        (aside / "state.json").write_text(json.dumps(vars(state)))
        publish(aside, folder / f"step-{state.step:08d}")
    world.wait()


def publish(aside: Path, place: Path) -> None:
    """Make a folder visible that was written aside: on the disk first, then under its name."""
    for file in aside.rglob("*"):
        if file.is_file():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
    shutil.rmtree(place, ignore_errors=True)
    os.replace(aside, place)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a stage."""
    return max(found(folder), default=None)


def found(folder: Path) -> list[Path]:
    """All of them, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def retain(folder: Path, keep: int) -> None:
    """Delete all but the last few."""
    for path in found(folder)[: -keep or None]:
        shutil.rmtree(path)


def read_state(path: Path) -> State:
    """Of a checkpoint.

    Raises:
        ValueError: It is damaged.
    """
    try:
        told = json.loads((path / "state.json").read_text())
        lanes = {int(number): lane for number, lane in told.pop("lanes").items()}
        return State(lanes=lanes, **told)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({error}): delete this folder to go on from the one before") from error


def restore(path: Path, learning: Named, optimizer: torch.optim.Optimizer, world: World) -> None:
    """Put weights, moments and the random generator's state back.

    Raises:
        ValueError: It is damaged, or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights, moments = (load_file(path / f"{name}.safetensors") for name in ("weights", "moments"))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: damaged ({error}): delete this folder to go on from the one before") from error
    if weights.keys() != learning.keys():
        differing = min(weights.keys() ^ learning.keys())
        raise ValueError(f"{path}: {differing} learns in only one of checkpoint and recipe: begin in another folder")
    for name, parameter in learning.items():
        assign(parameter, weights[name])
        if f"step.{name}" in moments:
            optimizer.state[parameter] = _moment(parameter, {key: moments[f"{key}.{name}"] for key in _MOMENTS})
    if (key := "cuda_rng") in moments and world.device.type == "cuda":
        torch.cuda.set_rng_state(moments[key], world.device)
    torch.set_rng_state(moments["rng"])


def _moment(parameter: nn.Parameter, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
    for key, target in made.items():
        assign(target, stored[key])
    # A fused AdamW counts steps on the parameter's device, the plain one on the CPU.
    step = stored["step"].to(parameter.device) if parameter.device.type == "cuda" else stored["step"]
    return {"step": step, **made}


def _gathered(tensors: Mapping[str, Tensor], world: World) -> Iterator[tuple[str, Tensor]]:
    """Whole, on the CPU of the first worker, one after another: a GPU holds one of them at a time."""
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if world.leads:
            yield name, full.cpu().contiguous()


def _moments(learning: Named, optimizer: torch.optim.Optimizer, world: World) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in learning.items():
        if parameter in optimizer.state:
            stored = {f"{key}.{name}": optimizer.state[parameter][key] for key in _MOMENTS}
            yield from _gathered(stored, world)
