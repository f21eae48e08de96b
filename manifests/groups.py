"""Rows in groups, by the values of a stored column: a balanced choice among them, and how diverse they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from core.errors import UserError
from manifests import balance

ORDERS = ("random", "closest", "farthest", "highest_<column>", "lowest_<column>")

_DENSE = 1 << 24  # integers that span no more than this are numbered without sorting them

Codes = npt.NDArray[np.int64]


def ordering(order: str) -> tuple[str, bool] | None:
    """The column that an order goes by and whether largest first; None for `random`.

    Raises:
        UserError: There is no such order.
    """
    if order == "random":
        return None
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
    """A balanced choice: one boolean per row, true for at most `each` rows of a group, or for `total` in all.

    Args:
        rows: `id`, the column `by` without nulls, and those of `order` and `within`.
        by: Its values make the groups.
        each: Rows per group.
        total: Else: rows in all, as evenly as the groups allow.
        order: Which rows of a group come first, see `ordering`.
        seed: Of the hash that decides the rest.
        within: Of `total`: columns of coarser groups, finest first.
    """
    codes, names = numbered(rows[by])
    if each is not None:
        quotas = np.full(names.len(), each, np.int64)
    else:
        quotas = _shares(rows, codes, names, total, seed, within)
    ids = rows["id"].to_numpy()
    return pl.Series(balance.select(codes, _ranks(rows, order), ids, quotas, seed))


def numbered(values: pl.Series) -> tuple[Codes, pl.Series]:
    """Each row's group as a number from 0, and the groups' names by that number (some may have no row).

    Args:
        values: Texts, integers or booleans, none null.
    """
    if values.dtype.is_integer() and values.len():
        low, high = int(values.min()), int(values.max())  # type: ignore[arg-type]
        if high - low < max(_DENSE, values.len()):
            codes = values.to_numpy().astype(np.int64) - low
            return codes, pl.arange(low, high + 1, dtype=pl.Int64, eager=True)
    codes = values.rank("dense").to_numpy().astype(np.int64) - 1
    return codes, values.unique().sort()


def effective_number(sizes: npt.NDArray[np.integer]) -> float:
    """How many groups of one size would be as diverse: the exponential of the entropy (Hill number of order 1).

    Between 1 (all rows in one group) and the number of groups (all of one size); 0 without rows.
    """
    shares = sizes[sizes > 0] / max(int(sizes.sum()), 1)
    return math.exp(-float(np.sum(shares * np.log(shares)))) if len(shares) else 0.0


def _shares(
    rows: pl.DataFrame, codes: Codes, names: pl.Series, total: int, seed: int, within: Sequence[str]
) -> npt.NDArray[np.int64]:
    """The quota of each group, so that all together have `total`; with coarser groups, from the coarsest down."""
    sizes = np.bincount(codes, minlength=names.len())
    priorities, parents = [balance.name_priority(names, seed)], []
    for column in within:
        above, above_names = numbered(rows[column])
        parent = np.zeros(len(priorities[-1]), np.int64)
        parent[codes] = above  # a group without rows has no parent that is known, and no rows to keep
        parents.append(parent)
        priorities.append(balance.name_priority(above_names, seed))
        codes = above
    return balance.nested_caps(sizes, parents, total, priorities)


def _ranks(rows: pl.DataFrame, order: str) -> npt.NDArray[np.generic] | None:
    """What rows are ordered by, smallest first; None where the ids alone decide."""
    by = ordering(order)
    if by is None:
        return None
    column, largest_first = by
    values = rows[column]
    if values.dtype.is_unsigned_integer() or values.dtype == pl.Boolean:
        values = values.cast(pl.Int64)
    return (-values if largest_first else values).to_numpy()
