"""Why rows failed, by kind: the words of an error before its first colon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

REASONS = pa.list_(pa.struct([("kind", pa.string()), ("rows", pa.int64()), ("example", pa.string())]))
"""The type of a list of `Reason`."""

OTHER = "other"
_MOST = 8  # kinds in a receipt; the driver holds the receipts of all parts
_LONGEST_KIND, _LONGEST_EXAMPLE = 60, 120  # characters


@dataclass(frozen=True)
class Reason:
    """A kind of error, the number of rows with it, and the error of one of them, cut to 120 characters."""

    kind: str
    rows: int
    example: str


def kind_of(error: str) -> str:
    """Return the kind of an error, at most 60 characters."""
    return error.partition(":")[0].strip()[:_LONGEST_KIND] or OTHER


def count_reasons(errors: Iterable[str]) -> list[Reason]:
    """Count errors by kind, the commonest first; kinds beyond the first 8 are one, `other`."""
    counts, examples = Counter[str](), dict[str, str]()
    for error in errors:
        kind = kind_of(error)
        counts[kind] += 1
        examples.setdefault(kind, error[:_LONGEST_EXAMPLE])
    common = counts.most_common(_MOST)
    reasons = [Reason(kind, rows, examples[kind]) for kind, rows in common]
    rest = counts.total() - sum(rows for _, rows in common)
    return [*reasons, Reason(OTHER, rest, OTHER)] if rest else reasons
