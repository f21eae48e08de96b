"""Similarity of an image to its texts: cosines of stored embeddings, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa

from core.errors import UserError
from core.stages import Stage
from manifests.embeddings import encoder_of, to_matrix
from manifests.schemas import column


class Similarity(Stage):
    """Cosines of the image's embedding with those of its coarse caption and of its alt text.

    The third step of VL3-Syn7M drops images with a low CLIP similarity to their BLIP-2 caption: they are hard to
    describe in few words (VideoLLaMA 3, arXiv 2501.13106, section 2.3; no threshold is given). Cosines are comparable
    only within one encoder: COYO-700M's alt texts average 0.291 by ViT-B/32 and 0.255 by ViT-L/14. Cosines of generated
    captions are higher and vary less. A fraction (`top`) is valid for other encoders too, a threshold (`min`) is not.
    """

    name: ClassVar = "similarity"
    driver_rows: ClassVar = 100_000
    reads: ClassVar = ("image_embedding", "text_embedding", "alt_text_embedding")
    writes: ClassVar = pa.schema(
        [
            column("similarity", pa.float32(), "Cosine similarity of image and coarse caption", -1, 1),
            column("alt_similarity", pa.float32(), "Cosine similarity of image and alt text; null without one", -1, 1),
        ]
    )

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        image, text = (encoder_of(inputs[name]) for name in self.reads[:2])
        if image != text:
            raise UserError(f"the images are embedded by {image} and the texts by {text}; use one encoder for both")

    def __call__(self, batch: pa.Table) -> pa.Table:
        images, image_errors = to_matrix(batch["image_embedding"])
        texts, text_errors = to_matrix(batch["text_embedding"])
        alts, alt_errors = to_matrix(batch["alt_text_embedding"])
        errors = [image or text for image, text in zip(image_errors, text_errors, strict=True)]
        failed = np.array([error is not None for error in errors])
        no_alt = failed | np.array([error is not None for error in alt_errors])
        cosines = np.einsum("nd,nd->n", images, texts).clip(-1, 1)
        alt_cosines = np.einsum("nd,nd->n", images, alts).clip(-1, 1)
        columns = {"similarity": pa.array(cosines, mask=failed), "alt_similarity": pa.array(alt_cosines, mask=no_alt)}
        return pa.table({**columns, "error": pa.array(errors, pa.string())})
