"""Embeddings of captions and alt texts: what `clip_text` and `conse_text` share, and their setting `texts`.

A text is a column. A *given* text came with the image (`alt_text`, a column of the pool); a caption is computed by an
earlier stage. Many images have no given text, which is no error. Each image that gets this far has a caption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import AfterValidator, Field

from core.errors import UserError
from manifests.embeddings import embedding_column, from_matrix

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def is_given(text: str) -> bool:
    """Return whether a text came with the image. Then it may be missing."""
    return text == "alt_text" or text.startswith("pool.")


def embedding_of(text: str) -> str:
    """Return the column with a text's embedding: `text_embedding` of the coarse caption, else `<text>_embedding`.

    A column of the pool is `pool_X_embedding`: COYO's alt texts are called `text`, and would pass for coarse captions.
    """
    return "text_embedding" if text == "coarse_caption" else f"{_name(text)}_embedding"


def similarity_of(text: str) -> str:
    """Return the column with a text's cosine: `similarity`, `alt_similarity`, else `<text>_similarity`."""
    names = {"coarse_caption": "similarity", "alt_text": "alt_similarity"}
    return names.get(text, f"{_name(text)}_similarity")


def _name(text: str) -> str:
    return text.replace("pool.", "pool_", 1) if text.startswith("pool.") else text


def _checked(texts: tuple[str, ...]) -> tuple[str, ...]:
    if not all(text.strip() for text in texts):
        raise UserError("one of the names is empty: write them as in alt_text,short_caption")
    for name in (embedding_of, similarity_of):
        columns = [name(text) for text in texts]
        if repeated := [column for column in columns if columns.count(column) > 1]:
            raise UserError(f"two of them have the column {repeated[0]}: leave one out")
    return texts


Texts = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_checked)]
DEFAULT_TEXTS = ("coarse_caption", "alt_text")


def text_remedy(column: str) -> str:
    """Say what to do about a text that no earlier stage writes."""
    return f"put the stage that writes {column} before this one, or name other texts, as in `texts: [alt_text]`"


def check_texts(inputs: Mapping[str, pa.Field]) -> None:
    """Refuse columns that are no texts. `inputs` are the fields of the texts, without those of the pool."""
    for name, field in inputs.items():
        if not pa.types.is_string(field.type):
            raise UserError(f"texts: {name} is {field.type}, not text")


def text_columns(texts: Sequence[str], size: int, encoder: str) -> pa.Schema:
    """Return the columns of a stage that embeds texts."""
    return pa.schema([embedding_column(embedding_of(text), size, encoder, _meaning(text)) for text in texts])


def _meaning(text: str) -> str:
    name = {"coarse_caption": "The coarse caption", "alt_text": "The alt text"}.get(text, text)
    return f"{name}'s embedding, of length 1{f'; null without {text}' if is_given(text) else ''}"


def embed_texts(batch: pa.Table, texts: Sequence[str], encode: Encode, size: int) -> pa.Table:
    """Return the columns of `text_columns` for a batch, and errors.

    Args:
        batch: A table with the columns `texts`. A missing caption is an error, a missing given text is not.
        texts: The texts.
        encode: Maps texts to raw vectors, (texts, size).
        size: Dimensions of the embeddings.

    Raises:
        UserError: A column of the pool holds something else than texts.
    """
    errors: list[str | None] = [None] * batch.num_rows
    embeddings = {}
    for text in sorted(texts, key=is_given):  # a row that failed has no facts, so it needs no other vector
        known = [value if error is None else None for value, error in zip(_values(batch, text), errors, strict=True)]
        embeddings[text], flaws = _embed(known, encode, size)
        if not is_given(text):
            errors = [error or flaw for error, flaw in zip(errors, flaws, strict=True)]
    fine = pa.array([row if error is None else None for row, error in enumerate(errors)], pa.int64())
    columns = {embedding_of(text): embeddings[text].take(fine) for text in texts}
    return pa.table({**columns, "error": pa.array(errors, pa.string())})


def _values(batch: pa.Table, text: str) -> list[str | None]:
    values: list[str | None] = batch[text].to_pylist()
    if any(value is not None and not isinstance(value, str) for value in values):
        raise UserError(f"{text} is {batch.schema.field(text).type}, not text: name another column in `texts`")
    return values


def _embed(texts: Sequence[str | None], encode: Encode, size: int) -> tuple[pa.Array, list[str | None]]:
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
