"""The contract of a training source: its settings in a recipe, and the samples that they open."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, TypeAdapter

from core.errors import BadSampleError, UserError
from core.paths import check_path
from model.training.data.samples import Sample
from model.training.values import Value

_TRIED = 100  # samples that `check` tries before it refuses a source


class Source:
    """Samples, stored in blocks that are read together.

    Attributes:
        name: Name of the source in the recipe. The names of its samples start with it, and differ.
        blocks: Number of samples in each block, such as the row groups of a file. At least one block, none empty.
    """

    name: str
    blocks: Sequence[int]

    @property
    def rows(self) -> int:
        """Number of samples."""
        return sum(self.blocks)

    def sample(self, row: int) -> Sample:
        """Return one sample, 0 <= row < rows. Several threads call this at the same time.

        The same row must give the same sample in every process and after every restart.

        Raises:
            BadSampleError: The sample is bad; the message names it. It is skipped, and the training goes on.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Check that at least one of up to 100 samples can be read, before a training starts.

        The samples are drawn at random with a fixed seed.

        Raises:
            UserError: None can be read; the message gives the reason of the first.
        """
        reasons = []
        for row in sorted(random.Random(0).sample(range(self.rows), min(_TRIED, self.rows))):
            try:
                self.sample(row)
                return
            except BadSampleError as error:
                reasons.append(error)
        raise UserError(f"none of {len(reasons)} samples can be read, so the run stops; the first: {reasons[0]}")


@dataclass
class SelectedRows:
    """The samples of some rows of a source, without bad ones. It can be iterated repeatedly.

    Attributes:
        source: The source.
        rows: Rows of the source.
        skipped: One line per bad sample of the last iteration, with the reason.
    """

    source: Source
    rows: Sequence[int]
    skipped: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Sample]:
        self.skipped.clear()
        for row in self.rows:
            try:
                yield self.source.sample(row)
            except BadSampleError as error:
                self.skipped.append(" ".join(str(error).split()))


_Count = TypeAdapter(Annotated[int, Field(ge=0)])


def _held_out(value: object) -> int | str:
    if isinstance(value, str) and not value.isdecimal():
        return check_path(value)
    return _Count.validate_python(value)


class SourceConfig(Value):
    """Settings of a source: an entry of `sources:` in a training recipe.

    Attributes:
        held_out: Held-out samples: their loss is computed, and they are not trained on. A number: so many samples of
            the source. A path: other data of the same form, such as a .jsonl file or a folder of shards; then all
            samples of the source are trained on.
        changeable: Names of the settings that may change while a training is under way.
    """

    changeable: ClassVar[frozenset[str]] = frozenset()

    held_out: Annotated[int | str, BeforeValidator(_held_out)] = 0

    @property
    def num_held_out(self) -> int:
        """Number of samples of the source itself that are held out."""
        return 0 if isinstance(self.held_out, str) else self.held_out

    @property
    def location(self) -> str:
        """The path or URL of the data, for messages."""
        return type(self).__name__

    def open(self, name: str, blocks_in_memory: int = 8) -> Source:
        """Open the source under its name in the recipe; about `blocks_in_memory` blocks may stay in memory.

        Raises:
            UserError: It is missing, damaged, or has no samples.
        """
        raise NotImplementedError

    def at(self, location: str) -> Self:
        """Return the same settings for data at another location, of which nothing is held out. `held_out` names it.

        Raises:
            UserError: This kind of source takes only a number of held-out samples.
        """
        raise UserError(f"held_out: {location}: {type(self).__name__} takes a number of samples only")

    def fingerprint(self) -> str:
        """Return a hash of the data, in seconds. A checkpoint is not resumed with other data.

        Raises:
            UserError: A file cannot be read.
        """
        raise NotImplementedError

    def with_absolute_paths(self) -> Self:
        """Return the settings with absolute paths: workers run in other folders."""
        return self
