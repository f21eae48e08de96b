"""The base of stages whose model is run by an engine: the settings of the model and of its sampling, and the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from captioners.engines.base import Engine, Sampling
from captioners.engines.registry import AnyEngine
from captioners.quality_checks import check_language
from core.stages import ImageStage


class EngineStage(ImageStage):
    """Base class of stages that ask a chat model through an engine. Their rows are journaled.

    Attributes:
        model: A name on the hub or a folder; for a server, its name for the model.
        revision: Branch, tag or commit of the hub's repository.
        max_new_tokens: Maximum length of an answer, in tokens.
        temperature: 0 takes the most probable token each time.
        top_p: Sample from the most probable tokens whose probabilities sum to this; used if temperature is above 0.
        seed: Seed of the sampling.
        language: Expected language of the text (ISO 639-1).
        end_tokens: Further end tokens of the model. The answer is cut at the first one.
        reasoning_tags: Further names of tags around reasoning, such as `musing` for `<musing>…</musing>`.
        longest: Maximum longer side of an image, in pixels; larger images are scaled down.
        engine: The engine that runs the model. Changing it does not recompute anything.
    """

    fingerprint_exclude: ClassVar = ("engine",)
    journaled: ClassVar = True
    licences: ClassVar[Mapping[str, str]] = {}

    model: str
    revision: str | None = None
    max_new_tokens: int = Field(ge=1, le=8192)
    temperature: float = Field(default=0, ge=0, le=2)
    top_p: float = Field(default=1, gt=0, le=1)
    seed: int = 0
    language: str = "en"
    end_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    reasoning_tags: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    longest: int = Field(default=2048, ge=32)
    engine: AnyEngine

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str) -> str:
        check_language(language)
        return language

    @property
    def models(self) -> Mapping[str, str | None]:
        names = (self.model, *self.engine.more_models)
        return {name: self.engine.licences.get(name, self.licences.get(name)) for name in names}

    @property
    def model_files(self) -> Mapping[str, str]:
        return {self.model: self.model} if self.engine.loads_model else {}

    @property
    def gpus(self) -> int:
        return self.engine.gpus

    @property
    def batch_size(self) -> int:
        return self.engine.batch_size

    @property
    def actors(self) -> int | None:
        return self.engine.actors

    def check_available(self) -> None:
        """Check that the packages, and the model or the server, are available.

        Raises:
            UserError: They are not.
        """
        super().check_available()
        self.engine.check_available(self.model, self.name, self.revision)

    def load_engine(self) -> Engine:
        """Load the model, or connect to the server.

        Raises:
            UserError: That failed; the text gives the reason.
        """
        check_language(self.language)  # loads the language model once, before threads use it
        sampling = Sampling(self.max_new_tokens, self.temperature, self.top_p, self.seed)
        return self.engine.load(self.model, self.name, self.revision, sampling)
