"""An engine in this process: lmdeploy, on NVIDIA GPUs. The InternVL2 checkpoints of VL3-Syn7M's captions run in it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from captioners.engine import Answer, Question, Sampling
from captioners.finish import finished
from core.errors import UserError
from filters import weights


class Lmdeploy(BaseModel):
    """`lmdeploy.pipeline` with TurboMind, lmdeploy's own kernels.

    Attributes:
        tensor_parallel: GPUs that share one copy of the model; an actor asks Ray for as many.
        session_len: Longest prompt, image and answer together, tokens; default as the model's configuration has it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["lmdeploy"] = "lmdeploy"
    tensor_parallel: int = Field(default=1, ge=1)
    session_len: int | None = Field(default=None, ge=1024)

    @property
    def gpus(self) -> int:
        return self.tensor_parallel

    def ready(self, model: str, what: str, revision: str | None) -> None:
        """See that the model is there. Whether lmdeploy and a driver are is known where the GPUs are.

        Raises:
            UserError: It is not, with how to get it.
        """
        weights.ready(model, what, revision=revision)

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> LmdeployEngine:
        """Put the model on its GPUs.

        Raises:
            UserError: It cannot be, with the reason.
        """
        check_driver(what)
        weights.require("lmdeploy", "lmdeploy", what)
        import lmdeploy

        engine = lmdeploy.TurbomindEngineConfig(
            tp=self.tensor_parallel, session_len=self.session_len, revision=revision
        )
        with weights.loading(model, what):
            pipeline = lmdeploy.pipeline(model, backend_config=engine)
        return LmdeployEngine(pipeline, generation(sampling))


class LmdeployEngine:
    """`Engine` of `Lmdeploy`: a whole batch in one call, which lmdeploy schedules by itself."""

    calls = 1

    def __init__(self, pipeline: Any, config: Any) -> None:
        self._pipeline, self._config = pipeline, config
        self.made_by = {"engine": "lmdeploy", "lmdeploy": version("lmdeploy")}

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        asked = [(question.prompt, question.image) for question in questions]
        return [answer_of(response) for response in self._pipeline(asked, gen_config=self._config)] if asked else []


def generation(sampling: Sampling) -> Any:
    """lmdeploy's own `GenerationConfig`."""
    from lmdeploy import GenerationConfig

    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.temperature > 0,
        temperature=sampling.temperature or 1.0,
        top_p=sampling.top_p,
        random_seed=sampling.seed,
    )


def answer_of(response: Any) -> Answer:
    """An lmdeploy `Response` as ours. Its finish_reason is stop, length, error or abort; None where it was stopped."""
    text, reason = response.text or "", response.finish_reason
    details = str(response.error_message or text) if reason in ("error", "abort") else ""
    return finished(text, reason, "lmdeploy", response.input_token_len, response.generate_token_len, details=details)


def check_driver(what: str) -> None:
    """Refuse where there is no NVIDIA driver: lmdeploy imports there, and fails with a page of traceback later.

    Raises:
        UserError: There is none, with what else can be used.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise UserError(
            f"{what}: lmdeploy needs an NVIDIA GPU, and there is no driver here; use a server (engine: "
            "{kind: server, url: …}), or a model that transformers runs (engine: {kind: transformers})"
        ) from error
