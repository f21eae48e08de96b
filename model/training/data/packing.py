"""Pack samples into rows: first fit over a few open rows, with a budget of tokens and a budget of patches.

On a mixture of captions, questions and videos (mean 800 tokens, some 4,000) eight open rows reach a packing efficiency
of 0.98 or more at 4,096 tokens; benchmarks/packing.py measures it. The open rows are small and part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that can be packed into a row."""

    @property
    def tokens(self) -> int:
        """Number of tokens, placeholders included."""
        ...

    @property
    def patches(self) -> int:
        """Number of patches, before merging and pruning."""
        ...


T = TypeVar("T", bound=Sized)


@dataclass
class Row(Generic[T]):
    """A packed row: samples that share one forward pass."""

    samples: list[T] = field(default_factory=list)
    tokens: int = 0
    patches: int = 0

    def add(self, sample: T) -> None:
        """Append a sample and add up its tokens and patches."""
        self.samples.append(sample)
        self.tokens += sample.tokens
        self.patches += sample.patches


class Packer(Generic[T]):
    """First-fit packing.

    Attributes:
        open: Rows that can still take samples, oldest first.
    """

    def __init__(self, tokens: int, patches: int, open_rows: int = 8) -> None:
        """Set a row's budgets of tokens and patches, and the maximum number of open rows."""
        self.tokens, self.patches, self.open_rows = tokens, patches, open_rows
        self.open: list[Row[T]] = []

    def fits(self, sample: T) -> bool:
        """Return whether a sample fits into an empty row."""
        return sample.tokens <= self.tokens and sample.patches <= self.patches

    def add(self, sample: T) -> Row[T] | None:
        """Add a sample to the first open row that has room for it.

        Returns:
            A finished row, or None: a row whose tokens are used up exactly, or, if no open row had room and no further
            one may be opened, the fullest row.
        """
        assert self.fits(sample), f"{sample.tokens} tokens, {sample.patches} patches: longer than a row"
        for number, row in enumerate(self.open):
            if row.tokens + sample.tokens <= self.tokens and row.patches + sample.patches <= self.patches:
                row.add(sample)
                return self.open.pop(number) if row.tokens == self.tokens else None
        done = None
        if len(self.open) == self.open_rows:
            done = self.open.pop(max(range(len(self.open)), key=lambda n: self._fill(self.open[n])))
        self.open.append(Row())
        self.open[-1].add(sample)
        return done

    def _fill(self, row: Row[T]) -> float:
        """Return the larger used share of the two budgets, 0 to 1: either can make a row full."""
        return max(row.tokens / self.tokens, row.patches / self.patches)

    def flush(self) -> Iterator[Row[T]]:
        """Yield and remove all open rows, oldest first."""
        while self.open:
            yield self.open.pop(0)
