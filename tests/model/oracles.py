"""transformers' VideoLLaMA3 with random weights, wide enough that what a test compares differs from row to row."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.config import ModelConfig, preset
from model.videollama3 import VideoLLaMA3


def widen(module: nn.Module, seed: int = 0) -> None:
    """Redraw all weights: as they come, they are so small that every input gives the same answer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim >= 2:
                gain = 0.8 if "embed_tokens" in name else 1.5  # else a token's successor is the token itself
                parameter.normal_(std=gain / parameter[0].numel() ** 0.5, generator=generator)
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


def whole_oracle(config: ModelConfig | None = None, seed: int = 0) -> Any:
    """`VideoLlama3ForConditionalGeneration`, of the shapes of `tiny` by default."""
    from transformers import Qwen2Config, VideoLlama3Config, VideoLlama3ForConditionalGeneration

    config = config or preset("tiny")
    vision = config.vision.model_dump()
    vision["rope_parameters"] = {"rope_type": "axial", "rope_theta": vision.pop("rope_theta")}
    oracle = VideoLlama3ForConditionalGeneration(
        VideoLlama3Config(
            text_config=Qwen2Config(**{k: v for k, v in config.language.items() if k != "model_type"}),
            vision_config=vision,
            image_token_id=config.image_token_id,
            video_token_id=config.video_token_id,
            tie_word_embeddings=config.language["tie_word_embeddings"],
        )
    )
    widen(oracle, seed)
    return oracle.eval()


def ours_of(oracle: Any, config: ModelConfig | None = None) -> VideoLLaMA3:
    """Our model with the oracle's weights; again not through checkpoint.py."""
    model = VideoLLaMA3(config or preset("tiny"))
    copy_vision(oracle.model.vision_model, model.vision)
    model.projector.load_state_dict(oracle.model.projector.state_dict())
    model.language.model.load_state_dict(oracle.model.language_model.state_dict())
    model.language.lm_head.load_state_dict(oracle.lm_head.state_dict())
    return model.eval()


def their_name(name: str) -> str:
    """The oracle's name of one of our parameters."""
    for ours, theirs in {
        "vision.patch_embedding": "model.vision_model.embeddings.patch_embedding",
        "vision.layers": "model.vision_model.encoder.layers",
        "vision.": "model.vision_model.",
        "projector": "model.projector",
        "language.model": "model.language_model",
        "language.lm_head": "lm_head",
    }.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


IMAGE, VIDEO = preset("tiny").image_token_id, preset("tiny").video_token_id


@dataclass(frozen=True)
class Sample:
    """One random sample: text around images (m = 1) and clips (m = 2), of which some tokens are pruned."""

    ids: list[int]
    grids: list[tuple[int, int, int]]
    merges: list[int]
    keep: list[bool]
    pixels: Tensor

    @staticmethod
    def of(*items: tuple[int, int, int], seed: int = 0, pruned: bool = False) -> Sample:
        """Text, then for each grid its tokens and more text."""
        rng = random.Random(seed)
        ids, keep, merges = _text(rng), [], []
        for t, h, w in items:
            m = 2 if t > 1 else 1
            tokens = [not (pruned and t > 1) or rng.random() < 0.6 for _ in range(t * h * w // m**2)]
            ids += [VIDEO if t > 1 else IMAGE] * sum(tokens) + _text(rng)
            keep += tokens
            merges.append(m)
        return Sample(ids, list(items), merges, keep, patches(list(items), seed) if items else torch.zeros(0, 588))

    def theirs(self) -> dict[str, Tensor]:
        """As transformers' class takes it: images and clips apart, a batch of one."""
        sizes = [t * h * w for t, h, w in self.grids]
        tokens = torch.tensor(self.keep).split([n // m**2 for n, m in zip(sizes, self.merges, strict=True)])
        parts = list(zip(self.pixels.split(sizes), self.grids, self.merges, tokens, strict=True)) if sizes else []
        inputs = {"input_ids": torch.tensor([self.ids])}
        if images := [part for part in parts if part[1][0] == 1]:
            inputs |= _columns(images, "pixel_values", "image_grid_thw", "image_merge_sizes")
        if clips := [part for part in parts if part[1][0] > 1]:
            inputs |= _columns(clips, "pixel_values_videos", "video_grid_thw", "video_merge_sizes")
            inputs["video_compression_mask"] = torch.cat([part[3] for part in clips])
        return inputs


def _columns(parts: list[Any], pixels: str, grids: str, merges: str) -> dict[str, Tensor]:
    return {
        pixels: torch.cat([part[0] for part in parts]),
        grids: torch.tensor([part[1] for part in parts]),
        merges: torch.tensor([part[2] for part in parts]),
    }


def _text(rng: random.Random) -> list[int]:
    return [rng.randrange(256) for _ in range(rng.randrange(2, 9))]


def packed(*samples: Sample) -> dict[str, Tensor]:
    """As our model takes them: one row."""
    return {
        "input_ids": torch.tensor([i for s in samples for i in s.ids]),
        "segment_lengths": torch.tensor([len(s.ids) for s in samples]),
        "pixel_values": torch.cat([s.pixels for s in samples]),
        "grid_thw": torch.tensor([g for s in samples for g in s.grids]).reshape(-1, 3),
        "merge_sizes": torch.tensor([m for s in samples for m in s.merges]),
        "keep_mask": torch.tensor([k for s in samples for k in s.keep], dtype=torch.bool),
    }
