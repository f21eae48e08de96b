"""The sample: what sources return, and the only form of data that the rest of the trainer uses."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import BadSampleError

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
