"""Embeddings of the coarse caption and of the alt text: what `clip_text` and `conse_text` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.embeddings import embedding_column, from_matrix


def text_columns(size: int, encoder: str) -> pa.Schema:
    """Return the columns of a stage that embeds texts."""
    return pa.schema(
        [
            embedding_column("text_embedding", size, encoder, "The coarse caption's embedding, of length 1"),
            embedding_column("alt_text_embedding", size, encoder, "The alt text's, of length 1; null without alt text"),
        ]
    )


def embed_texts(batch: pa.Table, encode: Callable[[Sequence[str]], npt.NDArray[np.float32]], size: int) -> pa.Table:
    """Return the columns of `text_columns` for the captions and alt texts of a batch, and errors.

    Args:
        batch: A table with `coarse_caption` and `alt_text`. A missing caption is an error, a missing alt text is not.
        encode: Maps texts to raw vectors, (texts, size).
        size: Dimensions of the embeddings.
    """
    captions, errors = _embed(batch["coarse_caption"].to_pylist(), encode, size)
    # A row that failed has no facts, so it needs no vector of its alt text either.
    known = [alt if error is None else None for alt, error in zip(batch["alt_text"].to_pylist(), errors, strict=True)]
    alts, _ = _embed(known, encode, size)
    columns = {"text_embedding": captions, "alt_text_embedding": alts, "error": pa.array(errors, pa.string())}
    return pa.table(columns)


def _embed(
    texts: Sequence[str | None], encode: Callable[[Sequence[str]], npt.NDArray[np.float32]], size: int
) -> tuple[pa.Array, list[str | None]]:
    """Return the embeddings of texts, and errors; an empty text gets null and an error."""
    rows = [row for row, text in enumerate(texts) if text and text.strip()]
    errors: list[str | None] = ["no text: the caption is empty"] * len(texts)
    if not rows:
        return pa.nulls(len(texts), pa.list_(pa.float16(), size)), errors
    embeddings, flaws = from_matrix(encode([texts[row] or "" for row in rows]))
    for row, flaw in zip(rows, flaws, strict=True):
        errors[row] = flaw
    places = dict(zip(rows, range(len(rows)), strict=True))
    return embeddings.take(pa.array([places.get(row) for row in range(len(texts))], pa.int64())), errors
