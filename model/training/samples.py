"""A sample: what a source gives, and the only form that the rest of the trainer knows."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import BadSampleError

SAMPLE_ERRORS = (BadSampleError, ArithmeticError, MemoryError, RuntimeError, EOFError, BufferError, struct.error)
"""What decoders and tensors raise for one sample's sake: numbers beyond all bounds, sizes beyond the memory, nesting.

An OSError is none of them: a store that does not answer is nobody's sample's fault.
"""


def bad_sample(name: str, error: Exception) -> BadSampleError:
    """The error of one sample, in one line that names it."""
    reason = " ".join(str(error).split()) or "no reason was given"
    if not isinstance(error, BadSampleError):
        reason = f"{type(error).__name__}: {reason}"
    return BadSampleError(reason if reason.startswith(name) else f"{name}: {reason}")


@dataclass(frozen=True)
class Sample:
    """One conversation.

    Attributes:
        name: For people: source, file, and place in it.
        conversation: Messages as `model.Processor` takes them; images are bytes or paths, videos paths.
    """

    name: str
    conversation: Sequence[Mapping[str, Any]]
