"""How diverse rows in groups are: known answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from manifests import open_run
from manifests.diversity import diversity, spread
from manifests.groups import effective_number


def test_effective_number_of_groups_is_right() -> None:
    assert effective_number(np.array([5, 5, 5, 5])) == pytest.approx(4)
    assert effective_number(np.array([20])) == pytest.approx(1)
    assert effective_number(np.array([0, 3, 0, 1])) == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    )
    assert effective_number(np.array([], np.int64)) == 0


@pytest.mark.parametrize("column", ["id", "error", "retry"])
def test_columns_of_every_table_are_refused_as_groups(tmp_path: Path, column: str) -> None:
    (tmp_path / "recipe.yaml").write_text("vl3syn: 0.1.0\npool: {images: pool}\n")
    with pytest.raises(ValueError, match=f"{column} makes no groups; name a column such as cluster"):
        diversity(open_run(tmp_path), column)


def test_spread_of_sizes_leaves_empty_groups_out() -> None:
    sizes = np.concatenate([np.full(199, 1), [801, 0, 0]])
    result = spread(sizes)
    assert (result.rows, result.groups, result.smallest, result.median, result.largest) == (1000, 200, 1, 1, 801)
    assert result.largest_share == 0.801
    assert result.top_share == 0.802, "the largest two of two hundred"
    assert spread(np.zeros(3, np.int64)).rows == 0
