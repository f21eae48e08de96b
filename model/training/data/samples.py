"""The sample: what sources return, and the only form of data that the rest of the trainer uses."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import BadSampleError, UserError

SAMPLE_ERRORS = (BadSampleError, ArithmeticError, MemoryError, RuntimeError, EOFError, BufferError, struct.error)
"""Errors that decoders and tensors raise for a bad sample: numbers out of range, sizes beyond memory, deep nesting.

OSError is not among them: a store that does not answer is not the sample's fault.
"""


def bad_sample(name: str, error: Exception) -> BadSampleError:
    """Return the error of one sample: one line that starts with its name."""
    reason = " ".join(str(error).split()) or "no reason was given"
    if not isinstance(error, BadSampleError):
        reason = f"{type(error).__name__}: {reason}"
    return BadSampleError(reason if reason.startswith(name) else f"{name}: {reason}")


class ConsecutiveSkips:
    """Counts bad samples in a row: many of them end the run."""

    def __init__(self, limit: int) -> None:
        """`limit`: the number that ends the run."""
        self._limit, self._count = limit, 0

    def add(self, error: BadSampleError | None) -> None:
        """Count a sample: None, or the error of a bad one.

        Raises:
            UserError: It is the last of `limit` bad samples in a row.
        """
        self._count = self._count + 1 if error else 0
        if error and self._count >= self._limit:
            raise UserError(f"{self._count} bad samples in a row, so the run stops; the last: {error}")


@dataclass(frozen=True)
class Sample:
    """One conversation.

    Attributes:
        name: Name for messages: source, file, and position in the file.
        conversation: Messages in the form that `model.Processor` reads. Images are bytes or paths, videos are paths.
        references: Right answers to the last question, for scores; unchecked, as annotations have them. Not learned.
        labels: Texts and whole numbers that annotations have besides, such as `task_type`: scores are told by them.
    """

    name: str
    conversation: Sequence[Mapping[str, Any]]
    references: Any = None
    labels: Mapping[str, str | int] = field(default_factory=dict)
