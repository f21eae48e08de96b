"""Cosines: known answers, missing alt text, broken embeddings, and two encoders that must not meet."""

from __future__ import annotations

from typing import Any

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


def test_similarity_of_given_texts_alone_is_null_without_one() -> None:
    images, _ = from_matrix(np.array([[1.0, 0], [1, 0], [0, 0]]))
    alts = from_matrix(np.array([[1.0, 0], [0, 1], [1, 0]]))[0].take(pa.array([1, None, 2]))
    stage = Similarity(texts=("alt_text",))
    facts = stage(pa.table({"image_embedding": images, "alt_text_embedding": alts}))
    assert facts.select(stage.writes.names).schema.equals(stage.writes)
    assert facts["alt_similarity"].to_pylist() == [0, None, None]
    assert facts["error"].to_pylist() == [None, None, "no embedding: nothing is stored"], "its image has none"


def test_similarity_of_a_caption_without_embedding_is_an_error() -> None:
    images, _ = from_matrix(np.array([[1.0, 0], [1, 0]]))
    stage = Similarity(texts=("short_caption", "alt_text"))
    columns = {"short_caption_embedding": images.take(pa.array([0, None])), "alt_text_embedding": images}
    facts = stage(pa.table({"image_embedding": images, **columns}))
    assert facts["short_caption_similarity"].to_pylist() == [1, None]
    assert facts["alt_similarity"].to_pylist() == [1, None], "a failed row has no facts"
    assert facts["error"].to_pylist() == [None, "no embedding: nothing is stored"]


CONSE = [{"stage": "conse"}, {"stage": "label_caption"}]


def parsed(*stages: dict[str, Any]) -> list[str]:
    """The tables of the stages."""
    return [step.table for step in parse_recipe({"pool": {"parquet": "p"}, "stages": [*CONSE, *stages]}, "r").steps]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [{"stage": "similarity", "texts": ["alt_text"]}],
            r"reads 'alt_text_embedding', which no earlier stage writes: put clip_text .* with `texts: \[alt_text\]`$",
        ),
        (
            [{"stage": "conse_text", "texts": ["short_caption"]}],
            "reads 'short_caption', which no earlier stage writes: put the stage that writes short_caption before this",
        ),
        ([{"stage": "conse_text", "texts": []}], "texts: .* at least 1 item"),
        ([{"stage": "conse_text", "texts": ["labels"]}], r"texts: labels is list<.*>, not text$"),
        ([{"stage": "conse_text", "texts": ["alt_text", "alt_text"]}], "two of them have the column alt_text_emb"),
        (
            [
                {"stage": "conse_text", "texts": ["coarse_caption"]},
                {"stage": "similarity", "texts": ["pool.text"]},  # it would be compared with the coarse caption
            ],
            r"reads 'pool_text_embedding', which no earlier stage writes: put clip_text .* `texts: \[pool\.text\]`$",
        ),
        (
            [
                {"stage": "conse_text", "texts": ["coarse_caption"]},
                {"stage": "clip_text", "encoder": "ViT-B-32/openai", "texts": ["alt_text"]},
                {"stage": "similarity"},
            ],
            r"by conse-efflite0-minilm and the texts by ViT-B-32/openai \(alt_text_embedding\); use one encoder",
        ),
    ],
    ids=str,
)
def test_texts_that_do_not_fit_are_refused(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(*stages)


def test_default_texts_keep_the_tables_of_earlier_versions() -> None:
    tables = ["conse-bfd49c55", "label_caption-9d6a3fb9", "conse_text-afc27c85", "similarity-00626ecf"]
    assert parsed({"stage": "conse_text"}, {"stage": "similarity"}) == tables
    written_out = {"texts": ["coarse_caption", "alt_text"]}
    assert parsed({"stage": "conse_text", **written_out}, {"stage": "similarity", **written_out}) == tables
    others = parsed({"stage": "conse_text", "texts": ["alt_text"]}, {"stage": "similarity", "texts": ["alt_text"]})
    assert not {*others[2:]} & {*tables}
