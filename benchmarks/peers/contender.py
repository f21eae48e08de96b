"""What takes part in a piece of work: a command, and how to read what it has found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Found = Mapping[str, tuple[float, ...]]
"""What a contender tells of each image that it keeps, by the name of its file."""

DIGITS = 12
"""Hexadecimal digits of a SHA-256 that are compared. A float holds them."""


@dataclass(frozen=True)
class Contender:
    """One way to do a piece of work.

    Attributes:
        name: As the table has it.
        command: Writes what it needs into a new folder, and returns the command that is run there and measured.
        found: Reads the result out of that folder.
        environment: Variables that are set for it.
    """

    name: str
    command: Callable[[Path], Sequence[str]]
    found: Callable[[Path], Found]
    environment: Mapping[str, str] = field(default_factory=dict)


def differences(ours: Found, theirs: Found, tolerance: float) -> str:
    """Say in which way two results differ by more than that; an empty text if they do not."""
    if missing := sorted(set(ours) ^ set(theirs)):
        return f"{len(missing)} images only one of them keeps, such as {missing[0]}"
    for name, values in ours.items():
        if any(abs(a - b) > tolerance for a, b in zip(values, theirs[name], strict=True)):
            return f"{name}: {values} and {theirs[name]}"
    return ""
