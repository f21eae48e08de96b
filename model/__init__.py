"""VideoLLaMA3-min: the model of arXiv 2501.13106, in code that can be read in an evening.

>>> from model import Processor, VideoLLaMA3
>>> model, processor = VideoLLaMA3.from_pretrained(path), Processor.from_pretrained(path)
>>> tensors = processor([{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, "What is this?"]}])
>>> model(**tensors).logits
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.processor import Processor
    from model.videollama3 import VideoLLaMA3

__all__ = ["Processor", "VideoLLaMA3"]


def __getattr__(name: str) -> object:
    """Import the two classes, and with them torch, on first access."""
    if name == "VideoLLaMA3":
        from model.videollama3 import VideoLLaMA3

        return VideoLLaMA3
    if name == "Processor":
        from model.processor import Processor

        return Processor
    raise AttributeError(f"module 'model' has no attribute {name!r}")
