"""Similarity of an image to its texts: cosines of stored embeddings, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa

from core.errors import UserError
from core.stages import Stage
from filters.text_embeddings import DEFAULT_TEXTS, Texts, embedding_of, is_given, similarity_of
from manifests.embeddings import encoder_of, to_matrix
from manifests.schemas import column


class Similarity(Stage):
    """Cosines of the image's embedding with those of its coarse caption, of its alt text or of any other caption.

    The third step of VL3-Syn7M drops images with a low CLIP similarity to their BLIP-2 caption: they are hard to
    describe in few words (VideoLLaMA 3, arXiv 2501.13106, section 2.3; no threshold is given). DataComp's filter needs
    no captioner: it goes by the alt text. Cosines are comparable only within one encoder: COYO-700M's alt texts average
    0.291 by ViT-B/32 and 0.255 by ViT-L/14. Cosines of generated captions are higher and vary less. A fraction (`top`)
    is valid for other encoders too, a threshold (`min`) is not.

    Attributes:
        texts: The texts to compare with, as in `clip_text` or `conse_text`, which embed them.
    """

    name: ClassVar = "similarity"
    driver_rows: ClassVar = 100_000
    added_settings: ClassVar = ("texts",)
    texts: Texts = DEFAULT_TEXTS

    @property
    def reads(self) -> Sequence[str]:
        return ("image_embedding", *map(embedding_of, self.texts))

    @property
    def writes(self) -> pa.Schema:
        return pa.schema([column(similarity_of(text), pa.float32(), _meaning(text), -1, 1) for text in self.texts])

    def remedy(self, column: str) -> str:
        texts = [text for text in self.texts if embedding_of(text) == column]
        if not texts:
            return "put clip before this stage, or conse"
        return f"put clip_text before this stage, or conse_text, with `texts: [{texts[0]}]`"

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        image = encoder_of(inputs["image_embedding"])
        for name in self.reads[1:]:
            if (encoder := encoder_of(inputs[name])) != image:
                raise UserError(
                    f"the images are embedded by {image} and the texts by {encoder} ({name}); use one encoder for both"
                )

    def __call__(self, batch: pa.Table) -> pa.Table:
        images, errors = to_matrix(batch["image_embedding"])
        cosines, missing = {}, {}
        for text in self.texts:
            vectors, flaws = to_matrix(batch[embedding_of(text)])
            cosines[text] = np.einsum("nd,nd->n", images, vectors).clip(-1, 1)
            missing[text] = np.array([flaw is not None for flaw in flaws])
            if not is_given(text):
                errors = [error or flaw for error, flaw in zip(errors, flaws, strict=True)]
        failed = np.array([error is not None for error in errors])
        columns = {similarity_of(text): pa.array(cosines[text], mask=failed | missing[text]) for text in self.texts}
        return pa.table({**columns, "error": pa.array(errors, pa.string())})


def _meaning(text: str) -> str:
    name = {"coarse_caption": "coarse caption", "alt_text": "alt text"}.get(text, text)
    return f"Cosine similarity of image and {name}{'; null without one' if is_given(text) else ''}"
