"""One model that answers requests, one at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.chat import Chat, GenerationStats
from model.media_cache import MediaCache
from model.prompt import Message
from pipeline.serving.chat_request import ChatRequest

if TYPE_CHECKING:
    from model.processor import Processor
    from model.videollama3 import VideoLLaMA3


@dataclass(frozen=True)
class Answerer:
    """A model with its processor, and what requests may leave out.

    Attributes:
        model: The model, on the device where it runs.
        processor: The checkpoint's processor.
        names: The names that requests may call the model by; the first is its name.
        system: System prompt of requests that have none; empty: none.
        max_new_tokens: Maximum tokens of an answer, whatever a request asks for.
        media_cache: Encoded images and films, for further requests.
    """

    model: VideoLLaMA3
    processor: Processor
    names: Sequence[str]
    system: str = ""
    max_new_tokens: int = 2048
    media_cache: MediaCache = field(default_factory=MediaCache)

    def answer(self, request: ChatRequest) -> Answer:
        """Prepare the answer to a request: read its media, check that it fits. The model begins with `Answer.pieces`.

        Raises:
            UserError: The conversation does not fit the model.
            BadSampleError: An image or a film cannot be read.
        """
        if request.seed is not None:
            import torch

            torch.manual_seed(request.seed)
        most = min(request.max_new_tokens or self.max_new_tokens, self.max_new_tokens)
        chat = Chat(
            self.model,
            self.processor,
            self._with_system(request.conversation),
            max_new_tokens=most,
            temperature=request.temperature,
            top_p=request.top_p,
            media_cache=self.media_cache,
        )
        return Answer(chat, chat.reply(request.question), request.stop)

    def _with_system(self, conversation: Sequence[Message]) -> list[Message]:
        if not self.system or any(message["role"] == "system" for message in conversation):
            return list(conversation)
        return [{"role": "system", "content": self.system}, *conversation]


@dataclass
class Answer:
    """An answer that is written piece by piece."""

    _chat: Chat
    _pieces: Generator[str]
    _stop: Sequence[str]
    _stopped: bool = field(default=False, init=False)

    def pieces(self) -> Generator[str]:
        """Yield the text, up to the first of the texts that end it. Closing the iterator ends the answer."""
        held = ""  # the end of the text so far that may be the beginning of a stop
        with closing(self._pieces):
            for piece in self._pieces:
                held += piece
                if (end := _first(held, self._stop)) is not None:
                    self._stopped, held = True, held[:end]
                    break
                ready = len(held) - _overlap(held, self._stop)
                if ready:
                    yield held[:ready]
                    held = held[ready:]
        if held:
            yield held

    @property
    def stats(self) -> GenerationStats | None:
        """Counts and times; None until the answer has ended."""
        return self._chat.stats

    @property
    def finish_reason(self) -> str:
        """`stop`, or `length` if the answer was cut at the most tokens that it may have."""
        return "length" if self.stats and self.stats.cut and not self._stopped else "stop"


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first stop begins; None if there is none."""
    return min((text.find(stop) for stop in stops if stop in text), default=None)


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Return the length of the longest end of `text` with which a stop begins."""
    begun = (stop[:length] for stop in stops for length in range(1, len(stop)))
    return max((len(start) for start in begun if text.endswith(start)), default=0)
