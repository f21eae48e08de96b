"""Clusters for the tests of this folder. `tests/ray_nodes.py` says what they are made of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ray_nodes import Cluster


@pytest.fixture
def head() -> Iterator[Cluster]:
    """A head node with two CPUs."""
    with Cluster(cpus=2) as cluster:
        yield cluster
