"""A stand-in for lmdeploy 0.18, which needs a GPU: its signatures, its tokenizer's loading, and an engine with slots.

`test_lmdeploy.py` installs it, and compares the signatures with those of a wheel.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TurbomindEngineConfig:
    """The fields that vl3syn sets; the real class has more."""

    tp: int = 1
    session_len: int | None = None
    max_batch_size: int | None = None
    revision: str | None = None


@dataclass
class GenerationConfig:
    """Likewise."""

    max_new_tokens: int = 512
    do_sample: bool = False
    top_p: float = 1.0
    temperature: float = 0.8
    random_seed: int | None = None


@dataclass
class Response:
    text: str
    generate_token_len: int
    input_token_len: int
    finish_reason: str | None = None
    token_ids: list[int] = field(default_factory=list)
    error_message: str | None = None


def pipeline(
    model_path: str,
    backend_config: Any = None,
    chat_template_config: Any = None,
    log_level: str = "WARNING",
    max_log_len: int | None = None,
    trust_remote_code: bool = False,
    speculative_config: Any = None,
    allowed_media_domains: list[str] | None = None,
    **kwargs: Any,
) -> Pipeline:
    from transformers import AutoTokenizer

    assert not kwargs
    AutoTokenizer.from_pretrained(model_path, trust_remote_code=trust_remote_code)  # as lmdeploy/tokenizer.py
    return Pipeline(backend_config)


class Pipeline:
    """Answers as many requests at a time as it has slots, whichever calls they come from, as lmdeploy's limiter does.

    Attributes:
        answer: Makes the text of an answer; it runs in a slot.
    """

    answer: Callable[[str, Any], str] = staticmethod(lambda prompt, image: f"{image.width} by {image.height}")
    slots = 8

    def __init__(self, backend_config: Any) -> None:
        self.backend_config = backend_config
        self._slots = ThreadPoolExecutor(self.slots)

    def __call__(self, prompts: list[Any], gen_config: Any = None, **kwargs: Any) -> list[Response]:
        assert not kwargs
        running = [self._slots.submit(self.answer, *prompt) for prompt in prompts]
        return [Response(future.result(), 3, 5, "stop") for future in running]
