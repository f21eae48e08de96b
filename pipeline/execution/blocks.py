"""The blocks of a job, which are cut one by one: together they may not fit in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import pyarrow as pa


class Blocks(Sequence[pa.Table]):
    """Blocks that are cut whenever they are asked for, with the same rows each time."""

    @abstractmethod
    def cut(self, number: int) -> pa.Table:
        """Return the block of this number, from 0 to below their number."""

    @overload
    def __getitem__(self, number: int) -> pa.Table: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[pa.Table]: ...
    def __getitem__(self, number: int | slice) -> pa.Table | Sequence[pa.Table]:
        numbers = range(len(self))[number]
        return self.cut(numbers) if isinstance(numbers, int) else [self.cut(each) for each in numbers]


@dataclass(frozen=True)
class Remaining(Blocks):
    """What is left of a job: some tables, then the blocks of the job that have these numbers."""

    tables: Sequence[pa.Table]
    blocks: Sequence[pa.Table]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.tables) + len(self.numbers)

    def cut(self, number: int) -> pa.Table:
        after = number - len(self.tables)
        return self.tables[number] if after < 0 else self.blocks[self.numbers[after]]
