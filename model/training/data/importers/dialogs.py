"""Questions and answers under other names: instruction and output, prompt and response, and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Role
from model.training.data.importers.turns import text_of

PAIRS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("query", "response"),
    ("problem", "solution"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
)
"""Keys of a question and of its answer: Alpaca, Synthia, ms-swift, NuminaMath, …."""


def pair_of(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the keys of question and answer of an entry, None if it has none."""
    return next((pair for pair in PAIRS if all(isinstance(entry.get(key), str) for key in pair)), None)


def dialog_of(entry: Mapping[str, Any]) -> list[tuple[Role, str]]:
    """Return who says what in an entry with one question and one answer.

    `input` follows the instruction after a line break, as in LLaMA-Factory. `history` is a list of earlier pairs.

    Raises:
        BadSampleError: It has no such pair of keys.
    """
    keys = pair_of(entry)
    if keys is None:
        raise BadSampleError(f"no conversation: its keys are {', '.join(list(map(str, entry))[:12])}")
    dialog: list[tuple[Role, str]] = []
    if prompt := text_of(entry, "system", ""):
        dialog.append(("system", prompt))
    for pair in entry.get("history") or []:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise BadSampleError("history: give pairs of a question and an answer")
        dialog += [("user", pair[0]), ("assistant", pair[1])]
    question = entry[keys[0]]
    if more := text_of(entry, "input", ""):
        question = f"{question}\n{more}" if question else more
    return [*dialog, ("user", question), ("assistant", entry[keys[1]])]
