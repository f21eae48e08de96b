"""Engine: lmdeploy in this process, on NVIDIA GPUs. It runs the InternVL2 checkpoints that captioned VL3-Syn7M."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import Field

from captioners.engines.base import Answer, Engine, EngineConfig, Question, Sampling
from captioners.engines.finish import finished
from core import pretrained
from core.errors import UserError

log = logging.getLogger("vl3syn.captions")

_CODE = (
    "which lmdeploy runs with trust_remote_code: true and a revision only (docs/captions.md); "
    "OpenGVLab/InternVL3-8B-hf needs none"
)


class Lmdeploy(EngineConfig):
    """`lmdeploy.pipeline` with TurboMind, lmdeploy's own kernels.

    Attributes:
        tensor_parallel: Number of GPUs that share one copy of the model; an actor requests as many from Ray.
        session_len: Largest sum of prompt, image and answer tokens; default from the model's configuration.
        concurrency: Images in the engine at the same time. lmdeploy makes its batches from them: with fewer than its
            `max_batch_size` (128 to 1,024) it waits for images.
        trust_remote_code: Whether to run the Python code in the model's folder, with your rights, on each node.
            InternVL2 needs that for its tokenizer. A model of the hub then needs a commit as `revision`.
    """

    kind: Literal["lmdeploy"] = "lmdeploy"
    tensor_parallel: int = Field(default=1, ge=1)
    session_len: int | None = Field(default=None, ge=1024)
    concurrency: int = Field(default=256, ge=1, le=4096)
    trust_remote_code: bool = False

    @property
    def gpus(self) -> int:
        return self.tensor_parallel

    @property
    def batch_size(self) -> int:
        """1: lmdeploy makes the batches. A batch of ours would wait for its longest answer while the engine drains."""
        return 1

    @classmethod
    def installed(cls) -> str:
        check_driver("lmdeploy")
        try:
            return f"lmdeploy {version('lmdeploy')}"
        except PackageNotFoundError as error:
            advice = "in an environment of its own it can be a server (engine: start)"
            raise UserError(f"a driver, but no lmdeploy in this environment; {advice}") from error

    def check_available(self, model: str, what: str, revision: str | None) -> None:
        """Check that the model is available. lmdeploy and the driver are checked on the worker, which has the GPUs.

        Raises:
            UserError: It is not; the text says how to get it.
        """
        pretrained.check_available(model, what, revision=revision)
        if self.trust_remote_code:
            pretrained.check_pinned(model, what, revision)
            _warn_of_code(model, what)

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> LmdeployEngine:
        """Load the model on its GPUs.

        Raises:
            UserError: It cannot be loaded; the text gives the reason.
        """
        check_driver(what)
        pretrained.require("lmdeploy", "lmdeploy", what)
        import lmdeploy

        if self.trust_remote_code:
            pretrained.check_pinned(model, what, revision)
        engine = lmdeploy.TurbomindEngineConfig(
            tp=self.tensor_parallel, session_len=self.session_len, revision=revision
        )
        with pretrained.loading(model, what, _CODE):
            pipeline = lmdeploy.pipeline(model, backend_config=engine, trust_remote_code=self.trust_remote_code)
        provenance: dict[str, object] = {"engine": "lmdeploy", "lmdeploy": version("lmdeploy")}
        if self.trust_remote_code:
            provenance |= {"trust_remote_code": True, "revision": revision}
        return LmdeployEngine(pipeline, generation(sampling), self.concurrency, provenance)


class LmdeployEngine(Engine):
    """`Engine` of `Lmdeploy`. Threads call one pipeline: it runs all requests on its own event loop."""

    def __init__(self, pipeline: Any, config: Any, calls: int, provenance: Mapping[str, object]) -> None:
        self._pipeline, self._config, self.calls, self.provenance = pipeline, config, calls, provenance

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        prompts = [(question.prompt, question.image) for question in questions]
        return [answer_of(response) for response in self._pipeline(prompts, gen_config=self._config)] if prompts else []


@cache
def _warn_of_code(model: str, what: str) -> None:
    """Warn once per process that the code of a model's author runs."""
    log.warning(
        "%s: trust_remote_code: Python code of the author of %s runs with your rights on each node", what, model
    )


def generation(sampling: Sampling) -> Any:
    """Return the settings as lmdeploy's `GenerationConfig`."""
    from lmdeploy import GenerationConfig

    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.temperature > 0,
        temperature=sampling.temperature or 1.0,
        top_p=sampling.top_p,
        random_seed=sampling.seed,
    )


def answer_of(response: Any) -> Answer:
    """Convert an lmdeploy `Response`. Its finish_reason is stop, length, error or abort; None if it was stopped."""
    text, reason = response.text or "", response.finish_reason
    details = str(response.error_message or text) if reason in ("error", "abort") else ""
    return finished(text, reason, "lmdeploy", response.input_token_len, response.generate_token_len, details=details)


def check_driver(what: str) -> None:
    """Check for an NVIDIA driver. Without one lmdeploy can be imported, but fails later with a long traceback.

    Raises:
        UserError: There is no driver; the text names alternatives.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise UserError(
            f"{what}: lmdeploy needs an NVIDIA GPU, and there is no driver here; use a server (engine: "
            "{kind: server, url: …}), or a model that transformers runs (engine: {kind: transformers})"
        ) from error
