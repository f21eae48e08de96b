"""Vectors of texts that are slow to compute, in the user's cache folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Type = type[np.floating[Any]]


def cached_vectors(name: str, shape: tuple[int, int], dtype: Type, compute: Callable[[], Array]) -> Array:
    """Return the vectors of this name from the cache, or compute and keep them.

    Every actor of every run needs them, and only the first one computes them. A broken file is replaced.

    Args:
        name: A name that has a hash of everything that the vectors depend on.
        shape, dtype: What `compute` returns, (texts, dimensions).
        compute: Computes the vectors.
    """
    file = _folder() / f"{name}.npy"
    vectors = _read(file, shape, dtype)
    if vectors is None:
        vectors = compute()
        _write(file, vectors)
    return vectors


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "vl3syn"


def _read(file: Path, shape: tuple[int, int], dtype: Type) -> Array | None:
    """Read cached vectors; None if there are none, or if the file is broken."""
    try:
        vectors: Array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = vectors.shape == shape and vectors.dtype == dtype and bool(np.isfinite(vectors).all())
    return vectors if whole else None


def _write(file: Path, vectors: Array) -> None:
    """Cache vectors, atomically, since other actors may read at the same time."""
    with suppress(OSError):  # without a writable home the next actor computes them again
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            np.save(Path(folder) / "vectors.npy", vectors)
            os.replace(Path(folder) / "vectors.npy", file)
