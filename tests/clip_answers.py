"""What a chat model says of a clip: valid events, or what models do instead. Each answer is made of the question."""

from __future__ import annotations

import hashlib
import json
import re

AGAIN = "could not be used"
"""These words are in a question that is asked again."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)[- ]second")


def valid(images: str, prompt: str) -> str:
    """Two events that cover the clip, and a paragraph; for a question with a dense caption in it, a summary."""
    if "\nEvents:\n" in prompt:
        return f"A summary of number {hashlib.sha256(prompt.encode()).hexdigest()[:8]}, in one sentence."
    duration = float(_DURATION.findall(prompt)[0])
    dog = f"A dog, number {images[:8]}, runs over a field"
    events = [
        {"start": 0, "end": duration / 2, "text": f"{dog}."},
        {"start": duration / 2, "end": duration, "text": "The dog lies down beside an old man and sleeps."},
    ]
    return json.dumps({"events": events, "paragraph": f"{dog} and then sleeps."})


def broken_first(images: str, prompt: str) -> str:
    """An answer that is cut; when asked again, a valid one."""
    told = valid(images, prompt)
    return told if AGAIN in prompt else told[: len(told) // 2]


def with_prose(images: str, prompt: str) -> str:
    """JSON in a code fence, between two sentences."""
    return f"Sure, here it is:\n```json\n{valid(images, prompt)}\n```\nDo you need anything else?"


def never(images: str, prompt: str) -> str:
    """A caption without JSON."""
    return "I see a dog that runs over a field."


def mixed(images: str, prompt: str) -> str:
    """One of the above, by the hash of the images."""
    return (valid, broken_first, with_prose, never)[int(images[:8], 16) % 4](images, prompt)
