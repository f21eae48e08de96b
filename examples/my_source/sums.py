"""A training source of your own: questions about sums. Copy this file and change what `sample` returns."""

from __future__ import annotations

from pydantic import Field

from model.training.data.samples import Sample
from model.training.data.source import Source, SourceConfig


class Sums(SourceConfig):
    """Sums of two numbers below `largest`.

    Attributes:
        largest: Both numbers are smaller than this.
    """

    largest: int = Field(default=10, ge=1, le=1000)

    def open(self, name: str, blocks_in_memory: int = 8) -> Source:
        return _Sums(name, self.largest)

    def fingerprint(self) -> str:
        return str(self.largest)


class _Sums(Source):
    def __init__(self, name: str, largest: int) -> None:
        self.name, self.blocks = name, (largest,) * largest

    def sample(self, row: int) -> Sample:
        a, b = divmod(row, len(self.blocks))
        turns = [{"role": "user", "content": f"{a} + {b}?"}, {"role": "assistant", "content": str(a + b)}]
        return Sample(f"{self.name}: row {row}", turns)
