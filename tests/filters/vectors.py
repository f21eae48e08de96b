"""Embeddings of facts as a matrix, and the tolerance of bfloat16."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from manifests.embeddings import to_matrix


def vectors(facts: pa.Table, name: str = "image_embedding") -> np.ndarray:
    matrix, errors = to_matrix(facts[name])
    assert errors == [None] * len(matrix)
    return matrix


def check_tolerance(exact: np.ndarray, rounded: np.ndarray) -> None:
    """The documented tolerance, for vectors that differ from each other far more (docs/decisions.md)."""
    assert not np.array_equal(exact, rounded), "both in one float type"
    cosines = (exact * rounded).sum(1)
    assert cosines.mean() >= 0.999
    assert cosines.min() >= 0.995
    assert (exact @ exact.T)[np.triu_indices(len(exact), 1)].mean() < 0.95, "else any vector would pass"
