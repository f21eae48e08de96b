"""A small CLIP, trained on clean scenes of a seed of its own, and saved as open_clip reads folders.

It stands for the published CLIP, which a machine without a hub does not have. What it computes goes through the same
stages (`clip`, `clip_text`, `similarity`, `clusters`) as the published one. Unlike that one it was trained on scenes of
just this kind, with true texts, most of them incomplete, so it judges them better than a published CLIP would judge
the web.

    python -m evidence.arms.encoder FOLDER PACKAGE PHOTOGRAPHS SCENES [OBJECTS]
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from PIL import Image

from .cut_outs import Materials, load
from .pool import clean_scenes
from .scenes import INCOMPLETE, SIDE, alt_text

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

MEAN = STD = (0.5, 0.5, 0.5)
CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": SIDE, "patch_size": 14, "layers": 3, "width": 96, "head_width": 24},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 2},
}
PASSES, BATCH = 5, 256
LOSS = "loss.json"
_RATE = 2e-3


def train_encoder(folder: Path, materials: Materials, scenes: int, passes: int = PASSES, seed: int = 0) -> float:
    """Train the encoder and save it. Return the mean loss of the last pass, nats per scene and direction."""
    import open_clip
    import torch

    torch.manual_seed(seed)
    pairs = list(clean_scenes(scenes, "encoder", seed, materials))
    pixels = _pixels([picture for _, picture in pairs])
    said = Random(f"texts {seed}")
    texts = [alt_text(scene, INCOMPLETE, said) for scene, _ in pairs]
    tokens = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])(texts)
    network = open_clip.CLIP(**CONFIG)
    loss_of = open_clip.ClipLoss()
    steps = passes * max(1, scenes // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_rate(step / steps))
    losses = []
    for step in range(steps):
        if step % max(1, scenes // BATCH) == 0:
            order = torch.randperm(scenes)
        chosen, order = order[:BATCH], order[BATCH:]
        image, text, scale = network((pixels[chosen].float() / 255 - 0.5) / 0.5, tokens[chosen])
        loss = loss_of(image, text, scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    _save(network, folder)
    return sum(losses[-(steps // passes) :]) / (steps // passes)


def _share_of_rate(progress: float) -> float:
    """A tenth of the training warms up; then the rate falls to 0 as a cosine."""
    return min(10 * progress + 0.1, 0.5 + 0.5 * math.cos(math.pi * progress))


def _pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures as uint8, (pictures, 3, SIDE, SIDE)."""
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


def _save(network: Module, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    settings = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2))


def main() -> None:
    folder, package, photographs = map(Path, sys.argv[1:4])
    scenes, *objects = map(int, sys.argv[4:])
    materials = load(package, photographs)
    loss = train_encoder(folder, materials.first(*objects) if objects else materials, scenes)
    (folder / LOSS).write_text(json.dumps({"loss": loss}))


if __name__ == "__main__":
    main()
