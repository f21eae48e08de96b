"""Clusters for the tests of this folder. `tests/ray_nodes.py` says what they are made of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_nodes import Cluster


@pytest.fixture
def head() -> Iterator[Cluster]:
    """A head node with two CPUs."""
    with Cluster(cpus=2) as cluster:
        yield cluster


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short path: Ray puts sockets below it."""
    with tempfile.TemporaryDirectory(prefix="vl3-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
