"""Columns of embeddings: unit vectors as fixed-size lists of float16, marked with the encoder that computed them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.schemas import column

NORM_TOLERANCE = 0.01
"""Largest distance of a stored vector's length from 1. Rounding to float16 changes it by less than 0.001."""


def embedding_column(name: str, dimensions: int, encoder: str, doc: str) -> pa.Field:
    """Return a documented column of unit vectors. `encoder` identifies the embedding space."""
    field = column(name, pa.list_(pa.float16(), dimensions), doc)
    return field.with_metadata({**field.metadata, b"encoder": encoder.encode()})


def encoder_of(field: pa.Field) -> str | None:
    """Return the encoder that computed a column; None if it is not a column of embeddings."""
    name = (field.metadata or {}).get(b"encoder")
    return name.decode() if name else None


def is_embedding(field: pa.Field) -> bool:
    return bool(pa.types.is_fixed_size_list(field.type))


def to_matrix(embeddings: pa.ChunkedArray | pa.Array) -> tuple[npt.NDArray[np.float32], list[str | None]]:
    """Return the vectors of a column, and an error for each unusable one.

    Returns:
        Float32 of shape (rows, dimensions), and per row an error or None. A vector is usable if it is present, finite
        and of length 1. Rows with an error are zero.
    """
    array = embeddings.combine_chunks() if isinstance(embeddings, pa.ChunkedArray) else embeddings
    dimensions = array.type.list_size
    values = array.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, dimensions)
    if not array.null_count:
        matrix = values.astype(np.float32)
        errors = flaws(matrix)
    else:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        matrix = np.zeros((len(array), dimensions), np.float32)
        matrix[valid] = values
        errors = flaws(matrix)
        for row in np.flatnonzero(~valid):
            errors[row] = "no embedding: nothing is stored"
    matrix[[row for row, error in enumerate(errors) if error]] = 0
    return matrix, errors


def from_matrix(vectors: npt.NDArray[np.floating]) -> tuple[pa.Array, list[str | None]]:
    """Normalise a model's raw output. Return unit vectors as a float16 column, and per row an error or None.

    Args:
        vectors: Shape (rows, dimensions), not normalised. A row that is zero or not finite has no direction: it
            becomes null, with an error.
    """
    vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    bad = ~np.isfinite(norms) | (norms == 0)
    unit = vectors / np.where(bad, 1, norms)[:, None]
    values = pa.array(np.where(bad[:, None], 0, unit).astype(np.float16).ravel())
    array = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1], mask=pa.array(bad))
    return array, ["broken embedding: not finite or zero" if b else None for b in bad]


def flaws(matrix: npt.NDArray[np.float32]) -> list[str | None]:
    """Return per row an error if it is not a unit vector, else None."""
    norms = np.sqrt(np.einsum("nd,nd->n", matrix, matrix))
    errors: list[str | None] = [None] * len(norms)
    for row in np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE)):  # the negation includes NaN
        errors[row] = f"broken embedding: length {norms[row]:.3g} instead of 1"
    return errors
