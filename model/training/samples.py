"""A sample: what a source gives, and the only form that the rest of the trainer knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One conversation.

    Attributes:
        name: For people: source, file, and place in it.
        conversation: Messages as `model.Processor` takes them; images are bytes or paths, videos paths.
    """

    name: str
    conversation: Sequence[Mapping[str, Any]]
