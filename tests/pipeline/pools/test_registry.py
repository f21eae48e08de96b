"""What a row of a run is called."""

from __future__ import annotations

import pytest

from manifests.run import Run
from manifests.storage import Folder
from pipeline.pools.registry import noun_of


@pytest.mark.parametrize(
    ("pool", "noun"),
    [
        ({"images": "a"}, "image"),
        ({"parquet": "*.parquet", "image": "jpg"}, "image"),
        ({"videos": "films"}, "film"),
        ({"clips": "run"}, "clip"),
        ({"kind": "not_installed.pools:Zips", "where": "a"}, "row"),
    ],
)
def test_noun_is_that_of_the_kind_of_the_pool(pool: dict[str, str], noun: str) -> None:
    assert noun_of(Run("run", Folder.at("run"), {"pool": pool})) == noun
