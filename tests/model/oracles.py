"""transformers' VideoLLaMA3 with random weights, wide enough that what a test compares differs from row to row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model.config import ModelConfig, preset


def widen(module: nn.Module, seed: int = 0) -> None:
    """Redraw all weights: as they come, they are so small that every input gives the same answer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5, generator=generator)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def vision_oracle(config: ModelConfig | None = None, seed: int = 0) -> Any:
    """`VideoLlama3VisionModel`."""
    from transformers import VideoLlama3VisionConfig
    from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3VisionModel

    shape = (config or preset("tiny")).vision.model_dump()
    theta = shape.pop("rope_theta")
    rope = {"rope_type": "axial", "rope_theta": theta}
    oracle = VideoLlama3VisionModel(VideoLlama3VisionConfig(**shape, rope_parameters=rope))
    widen(oracle, seed)
    return oracle.eval()


def copy_vision(oracle: Any, encoder: nn.Module) -> None:
    """The oracle's weights into ours; by hand, so that the table in checkpoint.py is not tested by itself."""
    weights = {}
    for name, value in oracle.state_dict().items():
        weights[name.removeprefix("encoder.").removeprefix("embeddings.")] = value
    encoder.load_state_dict(weights)


def patches(grids: list[tuple[int, int, int]], seed: int = 1) -> Tensor:
    """Random normalised patches of that many (t, h, w)."""
    total = sum(t * h * w for t, h, w in grids)
    return torch.rand(total, 588, generator=torch.Generator().manual_seed(seed)) * 2 - 1
