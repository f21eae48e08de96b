"""Group rows by the values of a stored column: choose a balanced subset, and measure diversity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from core.errors import UserError
from manifests import balance
from manifests.priorities import name_priority

ORDERS = ("random", "spread", "closest", "farthest", "highest_<column>", "lowest_<column>")

_STRATA = "second_cluster"

_DENSE = 1 << 24  # integers that span no more than this are numbered without sorting them

Codes = npt.NDArray[np.int64]


def ordering(order: str) -> tuple[str, bool] | None:
    """Return the column of an order, and whether the largest comes first; None for `random`.

    The column of `spread` holds names, not amounts.

    Raises:
        UserError: There is no such order.
    """
    if order == "random":
        return None
    if order == "spread":
        return _STRATA, False
    if order in ("closest", "farthest"):
        return "distance", order == "farthest"
    way, _, column = order.partition("_")
    if way not in ("highest", "lowest") or not column:
        raise UserError(f"no order {order!r}; valid are {', '.join(ORDERS)}")
    return column, way == "highest"


def balanced(
    rows: pl.DataFrame,
    by: str,
    *,
    each: int | None = None,
    total: int = 0,
    order: str,
    seed: int,
    within: Sequence[str],
) -> pl.Series:
    """Choose a balanced subset of rows: at most `each` rows per group, or `total` rows in all.

    Args:
        rows: Columns `id`, `by` without nulls, and those of `order` and `within`.
        by: The column whose values make the groups.
        each: Largest number of rows per group.
        total: If `each` is None: number of rows in all, shared as evenly as the groups allow.
        order: Which rows of a group come first, see `ordering`.
        seed: Seed of the hash that decides the rest.
        within: For `total`: columns of coarser groups, finest first.

    Returns:
        One boolean per row: whether it is chosen.
    """
    codes, names = numbered(rows[by])
    if each is not None:
        quotas = np.full(names.len(), each, np.int64)
    else:
        quotas = _shares(rows, codes, names, total, seed, within)
    ids = rows["id"].to_numpy()
    return pl.Series(balance.select(codes, _ranks(rows, codes, order, seed), ids, quotas, seed))


def numbered(values: pl.Series) -> tuple[Codes, pl.Series]:
    """Return the index of each row's group, from 0, and the name of each group (some groups may have no rows).

    Args:
        values: Texts, integers or booleans, without nulls.
    """
    if values.dtype.is_integer() and values.len():
        low, high = int(values.min()), int(values.max())  # type: ignore[arg-type]
        if high - low < max(_DENSE, values.len()):
            codes = values.to_numpy().astype(np.int64) - low
            return codes, pl.arange(low, high + 1, dtype=pl.Int64, eager=True)
    codes = values.rank("dense").to_numpy().astype(np.int64) - 1
    return codes, values.unique().sort()


def effective_number(sizes: npt.NDArray[np.integer]) -> float:
    """Return how many groups of equal size would be as diverse: exp(entropy), the Hill number of order 1.

    It is between 1 (all rows in one group) and the number of groups (all of equal size), or 0 without rows.
    """
    shares = sizes[sizes > 0] / max(int(sizes.sum()), 1)
    return math.exp(-float(np.sum(shares * np.log(shares)))) if len(shares) else 0.0


def _shares(
    rows: pl.DataFrame, codes: Codes, names: pl.Series, total: int, seed: int, within: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Return the quota of each group, with the sum `total`. With coarser groups, share it from the coarsest down."""
    sizes = np.bincount(codes, minlength=names.len())
    priorities, parents = [name_priority(names, seed)], []
    for column in within:
        above, above_names = numbered(rows[column])
        parent = np.zeros(len(priorities[-1]), np.int64)
        parent[codes] = above  # the parent of a group without rows is unknown, but it has no rows to keep
        parents.append(parent)
        priorities.append(name_priority(above_names, seed))
        codes = above
    return balance.nested_quotas(sizes, parents, total, priorities)


def _ranks(rows: pl.DataFrame, codes: Codes, order: str, seed: int) -> npt.NDArray[np.generic] | None:
    """Return the sort value of each row, smallest first; None if only the ids decide."""
    by = ordering(order)
    if by is None:
        return None
    column, largest_first = by
    values = rows[column]
    if order == "spread":
        return balance.stratum_positions(codes, numbered(values.fill_null(-1))[0], rows["id"].to_numpy(), seed)
    if values.dtype.is_unsigned_integer() or values.dtype == pl.Boolean:
        values = values.cast(pl.Int64)
    return (-values if largest_first else values).to_numpy()
