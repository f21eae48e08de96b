"""Models, rows and measurements that several lines use."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gpu_lines.proof import Place
from model.config import ModelConfig, preset
from model.packed_row import PackedRow
from model.processor import Processor
from model.videollama3 import VideoLLaMA3

KERNELS = {
    "aten::_flash_attention_forward": "flash",
    "aten::_cudnn_attention_forward": "cuDNN",
    "aten::_scaled_dot_product_cudnn_attention": "cuDNN",
    "aten::_efficient_attention_forward": "efficient",
    "aten::_scaled_dot_product_attention_math": "math",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash of the CPU",
}
"""What the profiler calls the kernels of attention."""


def config(place: Place, layers: int | None = None, vocabulary: int | None = None) -> ModelConfig:
    """Return the shapes of `2b`, or of `tiny` in a dry run, for the byte tokenizer.

    Args:
        place: Where it will run.
        layers: Number of layers of encoder and language model. Default: the preset's.
        vocabulary: Number of words. Default: the preset's.
    """
    shapes = preset(place.size("2b", "tiny"))
    tokenizer = Processor.tiny().tokenizer
    ids = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
    language = {**shapes.language, "bos_token_id": None, "eos_token_id": None}
    vision = shapes.vision
    if layers:
        language["num_hidden_layers"] = layers
        vision = vision.model_copy(update={"num_hidden_layers": layers})
    if vocabulary:
        language["vocab_size"] = vocabulary
    return shapes.model_copy(update={**ids, "vision": vision, "language": language})


def spread(model: nn.Module) -> None:
    """Redraw all matrices: as they come, they are so small that every input gives nearly the same output."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)


def picture(side: int, seed: int = 0) -> Image.Image:
    """Return a square image of coarse noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def clip(side: int, frames: int = 4) -> list[Image.Image]:
    """Return frames whose left half stands still, so that tokens are pruned."""
    still = picture(side)
    shown = []
    for number in range(frames):
        frame = still.copy()
        frame.paste(picture(side, number).crop((side // 2, 0, side, side)), (side // 2, 0))
        shown.append(frame)
    return shown


def sample(place: Place, text: str = "What is it?") -> PackedRow:
    """Return a sample with an image, a clip, and an answer that is learned."""
    side = place.size(448, 56)
    content = [
        {"type": "image", "image": picture(side)},
        {"type": "video", "video": clip(side), "fps": 1},
        text,
    ]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "Noise, half of it still. " * 4}]
    return Processor.tiny()(turns, labels=True)


def build(place: Place, shapes: ModelConfig) -> VideoLLaMA3:
    """Return a model with new weights, float32, on the line's device."""
    torch.manual_seed(0)
    return VideoLLaMA3(shapes, place.device)


def off(value: Tensor, truth: Tensor) -> float:
    """Return the distance to the truth divided by the truth's length: 0 is exact, 1 is nonsense."""
    value, truth = value.detach().float(), truth.detach().float()
    return float((value - truth).norm() / truth.norm())


def finished(place: Place) -> None:
    """Wait until the device has done all work."""
    if place.cuda:
        torch.cuda.synchronize()


def seconds(place: Place, work: Callable[[], Any], repeat: int = 5, warm: int = 2) -> float:
    """Return the median duration of a call, after calls to warm up."""
    taken = []
    for number in range(warm + repeat):
        finished(place)
        begin = time.perf_counter()
        work()
        finished(place)
        if number >= warm:
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def peak_gib(place: Place, work: Callable[[], Any]) -> float | None:
    """Return the most memory that a call has held at once beyond what was held before, GiB; None on a CPU."""
    if not place.cuda:
        work()
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def kernels(work: Callable[[], Any]) -> Counter[str]:
    """Return how often each kernel of attention ran in a call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    return Counter({KERNELS[event.key]: event.count for event in profiled.key_averages() if event.key in KERNELS})


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in sorted(counts.items())) or "none"


def lengths_of(place: Place, total: int, pieces: Sequence[float]) -> list[int]:
    """Split a number of tokens in these proportions; a hundredth of it in a dry run."""
    total = place.size(total, total // 100)
    sizes = [max(int(total * piece / sum(pieces)), 1) for piece in pieces]
    return [*sizes[:-1], total - sum(sizes[:-1])]
