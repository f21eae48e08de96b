"""Lines of annotations with their media, and what a source reads of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadSampleError
from model.training.data.annotations import AnnotationSource

QUESTION = {"from": "human", "value": "<image>\nWhat?"}
ANSWER = {"from": "gpt", "value": "It."}


def source(folder: Path, entries: list[Any], suffix: str = ".jsonl", **others: Any) -> AnnotationSource:
    """A file of these entries; texts are written as they are."""
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    file = folder / f"notes{suffix}"
    file.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
    return AnnotationSource("notes", str(file), **others)


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


OURS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
TEXT = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]
THEIRS = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "It."}]


def read(folder: Path, entry: Any) -> list[tuple[str, Any]]:
    """Role and content of each message; of media the kind and the name of the file."""
    (folder / "notes.jsonl").write_text(json.dumps(entry))
    sample = AnnotationSource("notes", str(folder / "notes.jsonl")).sample(0)
    return [(message["role"], _named(message["content"])) for message in sample.conversation]


def _named(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [part if isinstance(part, str) else (part["type"], Path(part[part["type"]]).name) for part in content]


ONE = [("user", [("image", "a.png"), "What?"]), ("assistant", "It.")]
FILM = [("user", [("video", "clip.mp4"), "What?"]), ("assistant", "It.")]
NONE = [("user", ["What?"]), ("assistant", "It.")]


def answered(**keys: Any) -> dict[str, Any]:
    """An image, a question, and an answer with further keys."""
    return {"image": "a.png", "conversations": [OURS[0], OURS[1] | keys]}


def refused(folder: Path, entry: Any, reason: str) -> None:
    with pytest.raises(BadSampleError, match=f"^notes: notes.jsonl line 1: {reason}"):
        read(folder, entry)
