"""A random draw of rows by the rarity of their concepts: the rarer the values in a row's list, the likelier the row.

LLaVA-OneVision-1.5 balances its 85 million images like this (arXiv 2509.23661, section 3.1): the weight of an image is
inversely proportional to the frequencies of its concepts. Of several concepts we take the mean, so that a row is no
likelier for having a longer list. With lists of one length, a sum would give the same draw.

The draw is without replacement, and of an exact size (Efraimidis and Spirakis 2006, Weighted random sampling with a
reservoir). Its chance comes from the priority of the ids, so it does not depend on the order of rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from manifests.priorities import priority

Weights = npt.NDArray[np.float64]

_ROWS = 1 << 20  # rows to process at once; their temporary arrays take up to 250 MB


def drawn_by_rarity(rows: pl.DataFrame, by: str, total: int, seed: int = 0) -> pl.Series:
    """Draw `total` rows, or all, with the weights of `inverse_frequencies`. Rows with an empty list come last.

    Args:
        rows: Columns `id` and `by`, a list without null.
        by: The column of lists.
        total: Number of rows to draw, from 0.
        seed: Seed of the priority.

    Returns:
        One boolean per row: whether it is drawn.
    """
    return pl.Series(draw(inverse_frequencies(rows[by]), rows["id"].to_numpy(), total, seed))


def inverse_frequencies(lists: pl.Series) -> Weights:
    """Return the weight of each row: the mean of 1 / frequency over its values.

    The frequency of a value is the number of rows whose list has it. A value counts once in a list, and null is none.
    Besides the arguments this takes 8 bytes per row, some 40 bytes per different value, and 250 MB.

    Args:
        lists: A list of texts, integers or booleans in each row, (rows).

    Returns:
        Weights from 0 to 1, (rows). 0 for a row without values.
    """
    frequencies = _frequencies(lists)
    weights = np.zeros(len(lists))
    for start, members in _chunks(lists):
        rows, length = members["row"].to_numpy(), min(_ROWS, len(lists) - start)
        frequency = members.join(frequencies, on="name", how="left", maintain_order="left")["rows"].to_numpy()
        values = np.bincount(rows, minlength=length)
        # `bincount` adds the values of a row in the order of its list, so the sum is the same wherever the row is.
        sums = np.bincount(rows, 1 / frequency, minlength=length)
        np.divide(sums, values, out=weights[start : start + length], where=values > 0)
    return weights


def draw(weights: Weights, ids: npt.NDArray[np.int64], total: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Draw rows without replacement, with chances in proportion to their weights.

    Each row has the key E / weight, where E is exponentially distributed and made from the row's priority; the rows
    with the smallest keys are drawn. Rows of weight 0 come after all others. Ties are resolved by priority.

    Besides the arguments this takes 18 bytes per row, and 40 MB.

    Args:
        weights: Weight of each row, from 0, (rows).
        ids: Unique ids, (rows).
        total: Number of rows to draw, from 0.
        seed: Seed of the priority.

    Returns:
        Whether each row is drawn, (rows): min(total, rows) of them are.
    """
    if total >= len(ids):
        return np.ones(len(ids), bool)
    if total <= 0:
        return np.zeros(len(ids), bool)
    keys = np.full(len(ids), np.inf)
    for start in range(0, len(ids), _ROWS):
        rows = slice(start, start + _ROWS)
        # A uniform number below 1: the float next to 1 stands for the last 2¹⁰ priorities.
        uniform = np.minimum((priority(ids[rows], seed) + 0.5) / 2**64, 1 - 2**-53)
        with np.errstate(over="ignore"):  # a weight near 0 gives infinity, as 0 does
            np.divide(-np.log1p(-uniform), weights[rows], out=keys[rows], where=weights[rows] > 0)
    last = np.partition(keys, total - 1)[total - 1]
    drawn: npt.NDArray[np.bool_] = keys < last
    tied = np.flatnonzero(keys == last)
    first = np.argsort(priority(ids[tied], seed))[: total - int(drawn.sum())]
    drawn[tied[first]] = True
    return drawn


def _frequencies(lists: pl.Series) -> pl.DataFrame:
    """Return the number of rows that have each value: columns `name` and `rows`."""
    counted = pl.DataFrame(schema={"name": lists.dtype.inner, "rows": pl.UInt32})  # type: ignore[attr-defined]
    for _, members in _chunks(lists):
        more = members["name"].value_counts(name="rows")
        counted = pl.concat([counted, more]).group_by("name").agg(pl.col("rows").sum())
    return counted


def _chunks(lists: pl.Series) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield `_ROWS` rows at once: where they begin, and for each of their values `row` (counted from there), `name`."""
    for start in range(0, len(lists), _ROWS):
        part = lists.slice(start, _ROWS).list.unique(maintain_order=True).alias("name")
        yield start, part.to_frame().with_row_index("row").explode("name").drop_nulls("name")
