"""A chat server that answers as a model that is asked for questions about clips; some of its answers are broken.

What it says depends on the prompt only. Run it by itself with `python -m tests.question_server --port 8000`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chat_server import ChatServer, chat_server

GUESS = "B"
"""Its answer to every question with options that it is asked without the clip."""

WRITTEN, KEPT = 6, 4
"""Questions in each of its answers that can be read, and those of them that are sound."""

_WRAPPED = (
    "{}",
    "```json\n{}\n```",
    "Here you are:\n\n{}\n\nEach aspect has one [1].",
    "<think>Which {{aspects}} fit?</think>{}",
)
_BROKEN = ("{:.80}", "I have no questions.", '{{"questions": [{{"aspect": 3}}]}}')


@dataclass
class QuestionServer(ChatServer):
    """A server about clips whose caption, or length in tenths of a second, has a number.

    Attributes:
        broken: Share of its answers that are no questions.
    """

    broken: float = 0.0

    def caption(self, key: tuple[str, str]) -> str:
        return answer(self.prompts[key[1]], self.broken)


def answer(prompt: str, broken: float) -> str:
    """Return what it says to a prompt."""
    if not prompt.startswith("You write questions"):
        return GUESS if "Give the letter" in prompt else f"Player {_number(prompt)} falls down."
    chance = hashlib.sha256(prompt.encode()).digest()
    forms = _BROKEN if chance[0] / 256 < broken else _WRAPPED
    return forms[chance[1] % len(forms)].format(json.dumps({"questions": _questions(_number(prompt))}))


def _questions(number: int) -> list[dict[str, Any]]:
    """Return two questions of each form, one that leaks, and one that is there already."""
    player = f"player {number}"
    falls = f"P{player[1:]} falls."
    options = ["Throws the ball", "Falls down", "Walks away", "Sits on the bench"]
    return [
        {"aspect": "temporal", "question": f"When does {player} score?", "answer": "At 1.0-2.0 s."},
        {"aspect": "spatial", "question": f"Where is the coach of {player} standing?", "answer": "Near the goal."},
        {"aspect": "spatial", "question": "What is on the left in the caption?", "answer": "A tree."},
        {"aspect": "object_description", "question": f"What does {player} do last of all?", "answer": falls},
        {"aspect": "temporal", "question": f"When does {player} score??", "answer": "Early."},
        {
            "aspect": "time_order",
            "question": f"What is the first act of {player}?",
            "answer": options[0],
            "options": options,
        },
    ]


def _number(prompt: str) -> int:
    """Return the clip's number: from its caption or a question, else from its length."""
    match = re.search(r"(?:Clip|[Pp]layer) (\d+)", prompt) or re.search(r"a clip of (\d+\.\d) seconds", prompt)
    assert match, prompt
    return round(float(match[1]) * 10) if "." in match[1] else int(match[1])


@contextmanager
def question_server(**settings: Any) -> Iterator[ChatServer]:
    """A server in a thread of this process."""
    broken = settings.pop("broken", 0.0)
    with chat_server(**settings) as server:
        server.caption = lambda key: answer(server.prompts[key[1]], broken)  # type: ignore[method-assign]
        yield server


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--broken", type=float, default=0.0)
    asyncio.run(QuestionServer(**vars(parser.parse_args())).serve())
