"""Text embeddings by open_clip, computed once per text. `similarity` compares them with the images'.

CLIP: Radford et al. 2021, arXiv 2103.00020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.precision import HasPrecision
from core.stages import Facts, LoadedStage
from filters.open_clip_encoder import LICENCES, OpenClipModel, check_encoder, dimensions, tokenizer, weights_of
from filters.text_embeddings import DEFAULT_TEXTS, Texts, check_texts, embed_texts, text_columns, text_remedy
from filters.unpadded_texts import encode_tokens

if TYPE_CHECKING:
    import torch


class ClipText(HasPrecision, LoadedStage):
    """Text embeddings by CLIP's text tower, by default of the coarse caption and, if there is one, of the alt text.

    Attributes:
        encoder: As for `clip`; `similarity` needs the same encoder for both.
        texts: The texts to embed: captions of earlier stages, `alt_text`, or `pool.X`, column X of the pool's Parquet
            files. A caption that is empty is an error of its row; alt texts and texts of the pool may be missing.
    """

    name: ClassVar = "clip_text"
    added_settings: ClassVar = ("texts",)
    gpus: ClassVar = 1
    preload: ClassVar = ("open_clip",)
    encoder: str
    texts: Texts = DEFAULT_TEXTS

    @property
    def reads(self) -> Sequence[str]:
        return self.texts

    @property
    def writes(self) -> pa.Schema:
        return text_columns(self.texts, dimensions(self.encoder), self.encoder)

    def remedy(self, column: str) -> str:
        return text_remedy(column)

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        check_texts(inputs)

    @property
    def models(self) -> Mapping[str, str | None]:
        return {self.encoder: LICENCES.get(self.encoder)}

    @property
    def model_files(self) -> Mapping[str, str]:
        return {self.encoder: weights_of(self.encoder)}

    def check_available(self) -> None:
        check_encoder(self.encoder, self.name)

    def load(self) -> TextTower:
        model = OpenClipModel.load(self.encoder, self.name, self.precision)
        return TextTower(model, tokenizer(self.encoder, self.name), self.texts, dimensions(self.encoder))


class TextTower(Facts):
    """`Facts` of `clip_text`."""

    def __init__(
        self, model: OpenClipModel, tokenize: Callable[[list[str]], torch.Tensor], texts: Sequence[str], size: int
    ) -> None:
        self._model, self.provenance, self._tokenize = model, model.provenance, tokenize
        self._texts, self._size = texts, size

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, (texts, dimensions). Texts beyond the tower's context are cut, as in training."""
        tokens = self._tokenize(list(texts))
        vectors: npt.NDArray[np.float32] = encode_tokens(self._model.network, tokens, self._model.device).numpy()
        return vectors

    def __call__(self, batch: pa.Table) -> pa.Table:
        return embed_texts(batch, self._texts, self.encode, self._size)
