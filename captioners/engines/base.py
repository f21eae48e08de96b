"""What every engine is asked and what it answers: an image and a prompt in, a text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict

from core.stages import IMAGE


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
        cut: Whether it ended before it was whole: at the length limit, say (captioners/engines/finish.py).
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


class Engine:
    """A loaded model, or a connection to one.

    Attributes:
        calls: Calls that it takes at the same time, from threads.
        provenance: Stored with the rows: versions, the address of a server.
    """

    calls: int = 1
    provenance: Mapping[str, Any] = {}

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in the same order.

        Raises:
            OSError: What it depends on is gone, such as a server; the job ends with the text.
        """
        raise NotImplementedError


class EngineConfig(BaseModel):
    """Settings of an engine: `engine:` of a caption stage in a recipe.

    They change no caption: they are no part of the fingerprint.

    Attributes:
        kind: Which engine; of one outside of this project `package.module:Class`.
        gpus: GPUs of one worker.
        actors: Default number of workers; None: as many as fit.
        batch_size: Questions of one call.
        image_input: What `Question.image` is: `image`, a decoded picture, or `portable`, encoded bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: str

    @property
    def gpus(self) -> int:
        return 0

    @property
    def actors(self) -> int | None:
        return None

    @property
    def batch_size(self) -> int:
        return 16

    @property
    def image_input(self) -> str:
        return IMAGE

    def check_available(self, model: str, what: str, revision: str | None) -> None:
        """Check that the model, or the server, is there. `what` names the stage in errors.

        Raises:
            UserError: It is not, with how to get it.
        """

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> Engine:
        """Load the model, or connect to the server.

        Raises:
            UserError: It cannot be done, with the reason.
        """
        raise NotImplementedError
