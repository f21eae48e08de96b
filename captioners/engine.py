"""What every engine is asked and what it answers: an image and a prompt in, a text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from PIL.Image import Image


class Question(NamedTuple):
    """One image and what is asked about it.

    Attributes:
        image: The decoded image, or, for a server, its encoded bytes.
        prompt: The text.
    """

    image: Image | bytes
    prompt: str


class Answer(NamedTuple):
    """What came of a question.

    Attributes:
        text: The model's words; empty if there are none.
        cut: Whether it ended before it was whole: at the length limit, say (captioners/finish.py).
        prompt_tokens: Tokens that went in, those of the image among them; None where the engine does not tell.
        tokens: Tokens that came out.
        error: Why there is no text.
        retry: Whether asking again can help.
        reasoned: Whether the engine gave reasoning apart from the text.
    """

    text: str = ""
    cut: bool = False
    prompt_tokens: int | None = None
    tokens: int | None = None
    error: str | None = None
    retry: bool = False
    reasoned: bool = False


@dataclass(frozen=True)
class Sampling:
    """How the next word is chosen.

    Attributes:
        max_new_tokens: Where an answer is cut.
        temperature: 0 takes the most probable word each time.
        top_p: Of the most probable words so many that their probabilities sum to this.
        seed: Of the random choice, where temperature is above 0.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


class Engine(Protocol):
    """A loaded model, or the way to one.

    Attributes:
        calls: How many calls it takes at once.
        made_by: What computes the answers, as far as the engine can tell; goes into the provenance.
    """

    @property
    def calls(self) -> int: ...
    @property
    def made_by(self) -> Mapping[str, Any]: ...

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer each, in the same order; an OSError if what it depends on is gone for good."""
