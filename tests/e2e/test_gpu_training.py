"""A training step where training runs: tokens/s and MFU of the preset `2b` on one GPU (`make test-gpu` prints them).

What runs on CUDA runs on the CPU too, at the preset `tiny`; only size, device and precision differ.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from model import Processor, VideoLLaMA3
from model.config import preset
from model.training.data.annotations import AnnotationSource
from model.training.data.sampler import MixtureSampler
from model.training.dist import DistContext
from model.training.flops import peak_flops
from model.training.recipe import parse_recipe
from model.training.trainer import Step, Trainer
from tests.model.training import training_data


@dataclass(frozen=True)
class Target:
    """What is trained where: pictures have `side` pixels, rows `tokens` tokens, the peak counts where none is known."""

    preset: str
    device: str
    side: int
    tokens: int
    peak: float

    def trainer(self, folder: Path) -> Trainer:
        """Of one stage, over captions of the length of detailed ones; the byte tokenizer's ids fit any vocabulary."""
        names = {
            name: Processor.tiny().tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")
        }
        config = preset(self.preset).model_copy(update={f"{name}_token_id": number for name, number in names.items()})
        torch.manual_seed(0)
        model = VideoLLaMA3(config, self.device)
        recipe = parse_recipe(self._recipe(folder), "test")
        (stage,) = recipe.stages
        sampler = MixtureSampler([AnnotationSource("all", str(_annotations(folder, self.side)))], stage.mixture, {}, 0)
        return Trainer(
            model,
            Processor.tiny(),
            recipe=recipe,
            stage=stage,
            sampler=sampler,
            folder=folder / "out",
            world=DistContext(torch.device(self.device)),
        )

    def _recipe(self, folder: Path) -> dict[str, Any]:
        stage = {
            "name": "all",
            "learning_rates": dict.fromkeys(("vision", "projector", "language"), 3e-4),
            "mixture": {"all": 1.0},
            "tokens": self.tokens,
            "visual_tokens": self.tokens // 2,
            "rows": 1,
            "steps": 8,
            "warmup": 0.0,
            "schedule": "constant",
            "checkpointing": True,
        }
        source = {"annotations": str(folder / "all.jsonl")}
        return {"model": {"preset": "tiny"}, "sources": {"all": source}, "stages": [stage]}


def _annotations(folder: Path, side: int) -> Path:
    words = "a square of white on a wall of one colour " * 5
    entries = []
    for number in range(64):
        (folder / f"{number}.png").write_bytes(training_data.picture(number, side))
        turns = [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": f"{number}: {words}"}]
        entries.append({"image": [f"{number}.png"], "conversations": turns})
    file = folder / "all.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


TARGETS = [
    pytest.param(Target("tiny", "cpu", 56, 1024, 1e12), id="tiny-cpu"),
    pytest.param(
        Target("2b", "cuda", 448, 8192, 1e15),
        id="2b-cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


@pytest.mark.parametrize("target", TARGETS)
def test_step_time_and_flops_give_a_plausible_mfu(target: Target, tmp_path: Path) -> None:
    trainer = target.trainer(tmp_path)
    try:
        steps: list[Step] = list(iter(trainer.run_step, None))
    finally:
        trainer.close()
    peak = peak_flops(trainer.world.device) or target.peak
    mfu = statistics.median(step.flops / step.seconds / peak for step in steps[3:])
    rate = statistics.median(step.tokens / step.seconds for step in steps[3:])
    patches = statistics.median(step.patches / step.seconds for step in steps[3:])
    waiting = sum(step.data_time for step in steps[3:]) / sum(step.seconds for step in steps[3:])
    print(
        f"\n{target.preset} on {_name(trainer.world.device)}: {rate:,.0f} tokens/s, {patches:,.0f} patches/s, ", end=""
    )
    print(f"MFU {mfu:.1%} of {peak:.3g} FLOP/s, {waiting:.1%} of it waiting for data, {_memory(trainer.world.device)}")
    assert all(math.isfinite(step.loss) and step.packing_efficiency > 0.7 for step in steps)
    assert steps[-1].loss < steps[0].loss
    assert 0 < mfu < 1


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def _memory(device: torch.device) -> str:
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else "no GPU memory"
