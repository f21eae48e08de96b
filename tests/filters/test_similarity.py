"""Cosines: known answers, missing alt text, broken embeddings, and two encoders that must not meet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from filters.similarity import Similarity
from manifests.embeddings import embedding_column, from_matrix
from pipeline.recipe import parse_recipe


def test_similarity_of_known_embeddings_is_right_or_null() -> None:
    images, _ = from_matrix(np.array([[1.0, 0], [1, 0], [1, 0], [0, 0], [1, 0]]))
    texts, _ = from_matrix(np.array([[1.0, 0], [0, 1], [-1, 0], [1, 0], [1, 1]]))
    alts = texts.take(pa.array([4, None, 0, 0, None]))
    stage = Similarity()
    facts = stage(pa.table({"image_embedding": images, "text_embedding": texts, "alt_text_embedding": alts}))
    assert facts.select(stage.writes.names).schema.equals(stage.writes)
    assert facts["similarity"].to_pylist() == pytest.approx([1, 0, -1, None, 0.5**0.5], abs=1e-3)
    assert facts["alt_similarity"].to_pylist() == pytest.approx([0.5**0.5, None, -1 * -1, None, None], abs=1e-3)
    assert facts["error"].to_pylist() == [None, None, None, "no embedding: nothing is stored", None]


def test_texts_and_images_of_two_encoders_are_refused() -> None:
    fields = {n: embedding_column(n, 512, e, "") for n, e in (("image_embedding", "a"), ("text_embedding", "b"))}
    with pytest.raises(ValueError, match="embedded by a and the texts by b"):
        Similarity().validate_inputs(fields)
    stages = [{"stage": "conse"}, {"stage": "label_caption"}]
    stages += [{"stage": "clip_text", "encoder": "ViT-B-32/openai"}, {"stage": "similarity"}]
    with pytest.raises(ValueError, match="by conse-efflite0-minilm and the texts by ViT-B-32/openai"):
        parse_recipe({"pool": {"images": "pool"}, "stages": stages}, "r")
