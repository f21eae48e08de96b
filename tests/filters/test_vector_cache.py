"""The cache of vectors: computed once, computed again if a file is broken or holds something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from filters.vector_cache import cached_vectors


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vl3syn" / "a.npy"


def asked(dtype: type = np.float16, shape: tuple[int, int] = (2, 3)) -> tuple[np.ndarray, bool]:
    """The vectors of the name `a`, and whether they were computed."""
    calls = []

    def compute() -> np.ndarray:
        calls.append(1)
        return np.arange(6).reshape(shape).astype(dtype)

    return cached_vectors("a", shape, dtype, compute), bool(calls)


def test_vectors_are_computed_once(cache: Path) -> None:
    (first, computed), (second, again) = asked(), asked()
    assert (computed, again) == (True, False)
    assert np.array_equal(first, second)
    assert [file.name for file in cache.parent.iterdir()] == ["a.npy"], "nothing half-written beside it"


def test_broken_file_or_other_vectors_are_replaced(cache: Path) -> None:
    asked()
    whole = cache.read_bytes()
    for content in (b"", whole[:-2], b"not an array"):
        cache.write_bytes(content)
        assert asked()[1]
        assert cache.read_bytes() == whole
    assert asked(np.float32)[1]
    assert asked(np.float32, (3, 2))[1]
    np.save(cache, np.full((2, 3), np.nan, np.float16))
    assert asked()[1]


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert asked()[1]
    assert asked()[1]
