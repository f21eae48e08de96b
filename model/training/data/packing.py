"""Samples into rows: first fit over a few open rows, under a budget of tokens and one of patches.

On a mixture of captions, questions and clips (mean 800 tokens, some of 4,000) eight open rows fill 0.98 of 4,096 tokens
and more; benchmarks/packing.py measures it. What is open is little, and is a part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What is packed."""

    @property
    def tokens(self) -> int:
        """Tokens, placeholders included."""
        ...

    @property
    def patches(self) -> int:
        """Patches, all of them."""
        ...


T = TypeVar("T", bound=Sized)


@dataclass
class Row(Generic[T]):
    """Samples that are run together."""

    samples: list[T] = field(default_factory=list)
    tokens: int = 0
    patches: int = 0

    def add(self, sample: T) -> None:
        """Append."""
        self.samples.append(sample)
        self.tokens += sample.tokens
        self.patches += sample.patches


class Packer(Generic[T]):
    """First fit.

    Attributes:
        open: Rows that may still get samples, oldest first.
    """

    def __init__(self, tokens: int, patches: int, open_rows: int = 8) -> None:
        """Set the budgets of a row, and how many may be open."""
        self.tokens, self.patches, self.open_rows = tokens, patches, open_rows
        self.open: list[Row[T]] = []

    def fits(self, sample: T) -> bool:
        """Whether it fits into an empty row."""
        return sample.tokens <= self.tokens and sample.patches <= self.patches

    def add(self, sample: T) -> Row[T] | None:
        """Put a sample into the first row that has room for it.

        Returns:
            A row that is done: one that is full to the last token, or, where no open row had room, the fullest.
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
        """A row whose patches are used up is as done as one without room for tokens."""
        return max(row.tokens / self.tokens, row.patches / self.patches)

    def flush(self) -> Iterator[Row[T]]:
        """Give out what is open, oldest first."""
        while self.open:
            yield self.open.pop(0)
