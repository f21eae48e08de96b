"""Find questions that can be answered without the clip: they teach a model to guess."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image

from captioners.engines.base import Frame, Question
from captioners.films.question_checks import ClipQuestion
from captioners.films.question_prompts import without_clip
from core.choices import choice_of
from core.chrf import chrf
from core.stages import IMAGE

SAME_CHRF = 60.0
"""chrF, 0 to 100, from which two open answers count as the same. The number is ours, and not measured."""

_SIDE = 448  # pixels of the black picture


def blind_question(question: ClipQuestion, sees: bool, image_input: str) -> Question:
    """Return the question without the clip: with one black frame for a model that `sees`, else with nothing.

    Args:
        question: The question.
        sees: Whether the model that wrote it has seen frames.
        image_input: The form of images that the engine takes.
    """
    prompt = without_clip(question.question, question.options, sees)
    return Question(None, prompt, (Frame(0.0, _black(image_input)),) if sees else ())


def is_same_answer(question: ClipQuestion, answer: str) -> bool:
    """Return whether an answer is the right one: it names the same option, or its chrF is at least `SAME_CHRF`.

    A guess names the right one of four options in one of four cases.
    """
    if question.answer_index is not None:
        options = {chr(ord("A") + number): option for number, option in enumerate(question.options)}
        return choice_of(answer, options) == chr(ord("A") + question.answer_index)
    return chrf(_plain(answer), _plain(question.answer)) >= SAME_CHRF


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(" .!")


@cache
def _black(image_input: str) -> Image.Image | bytes:
    image = Image.new("RGB", (_SIDE, _SIDE))
    if image_input == IMAGE:
        return image
    encoded = io.BytesIO()
    image.save(encoded, "JPEG")
    return encoded.getvalue()
