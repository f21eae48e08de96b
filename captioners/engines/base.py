"""The interface of caption engines: a prompt, with an image, several frames or neither, in; a text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from PIL.Image import Image

from core.pretrained import require
from core.settings import Settings
from core.stages import IMAGE


class Frame(NamedTuple):
    """A frame of a clip.

    Attributes:
        time: Seconds from the clip's start.
        image: The decoded image, or its encoded bytes (see `EngineConfig.image_input`).
    """

    time: float
    image: Image | bytes

    @property
    def time_text(self) -> str:
        """The time as models read it before a frame, such as `<3.0 seconds>` (the form of Qwen3-VL)."""
        return f"<{self.time:.1f} seconds>"


class Question(NamedTuple):
    """A prompt, and what it is about: one image, the frames of a clip, or nothing but the prompt's own text.

    Attributes:
        image: The decoded image, or its encoded bytes (see `EngineConfig.image_input`). None: the question is about
            `frames`, or about a text. Only engines with `several_images` get such questions.
        prompt: The text of the prompt.
        frames: The frames of a clip in order of their times; then `image` is None.
    """

    image: Image | bytes | None
    prompt: str
    frames: tuple[Frame, ...] = ()


class Answer(NamedTuple):
    """The result of a question.

    Attributes:
        text: The model's text; may be empty.
        cut: Whether the text may be incomplete, such as at the length limit (captioners/engines/finish.py).
        prompt_tokens: Tokens of prompt and image; None if the engine does not report them.
        tokens: Generated tokens; None if the engine does not report them.
        error: Why there is no text; None if there is no error.
        retry: Whether the question can be retried.
        reasoned: Whether the engine returned reasoning separately from the text.
        refused: Whether the engine says that the text is a refusal.
    """

    text: str = ""
    cut: bool = False
    prompt_tokens: int | None = None
    tokens: int | None = None
    error: str | None = None
    retry: bool = False
    reasoned: bool = False
    refused: bool = False


@dataclass(frozen=True)
class Sampling:
    """Settings of text generation.

    Attributes:
        max_new_tokens: Largest length of an answer, in tokens.
        temperature: 0 takes the most probable token each time.
        top_p: Sample from the most probable tokens whose probabilities sum to this.
        seed: Seed of the sampling, used if the temperature is above 0.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


class Engine:
    """A loaded model, or a connection to one.

    Attributes:
        calls: Number of calls that it accepts at the same time, from different threads.
        provenance: Stored with the rows: versions, the address of a server.
    """

    calls: int = 1
    provenance: Mapping[str, object] = {}

    def prepare(self, question: Question) -> Any:
        """Convert a question to what `__call__` takes. The threads that decode images call this, several at once."""
        return question

    def __call__(self, questions: Sequence[Any]) -> list[Answer]:
        """Return one answer for each prepared question, in the same order.

        Raises:
            OSError: The engine cannot continue, for example because the server is gone; the job ends with this error.
        """
        raise NotImplementedError


class EngineConfig(Settings):
    """Settings of an engine: `engine:` of a caption stage in a recipe.

    They are not part of the fingerprint: changing them does not recompute captions.

    Attributes:
        kind: The engine's name, or `package.module:Class` for an engine of another package.
        licences: Licences of models, by name; the dataset card states that of the stage's model.
        packages: Packages that the engine imports, each with the extra of vl3syn that installs it, or an empty text.
        several_images: Whether the engine answers questions about several frames, and questions without an image.
        more_models: Models that it asks beside that of the stage.
        loads_model: Whether workers load the model from its files, or start something that does.
        gpus: GPUs per worker.
        actors: Default number of workers; None: as many as fit.
        batch_size: Questions per call.
        image_input: The form of `Question.image` and of frames: `image`, a decoded image, or `portable`, encoded bytes.
    """

    licences: ClassVar[Mapping[str, str]] = {}
    packages: ClassVar[Mapping[str, str]] = {}
    several_images: ClassVar[bool] = False

    kind: str

    @property
    def more_models(self) -> Sequence[str]:
        return ()

    @property
    def loads_model(self) -> bool:
        return True

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

    @classmethod
    def installed(cls) -> str | None:
        """Return what this machine has to run the engine, for `vl3syn doctor`; None if there is nothing to install.

        Raises:
            UserError: Something is missing; the text says what to do.
        """
        return None

    def check_available(self, model: str, what: str, revision: str | None) -> None:
        """Check that the packages, and the model or the server, are available. `what` names the stage in errors.

        Raises:
            UserError: They are not; the text says how to get them.
        """
        for package, extra in self.packages.items():
            require(package, extra, what)

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> Engine:
        """Load the model, or connect to the server.

        Raises:
            UserError: That failed; the text gives the reason.
        """
        raise NotImplementedError
