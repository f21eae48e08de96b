"""A chat: questions about images and videos, answers as they are written.

>>> chat = Chat(model, processor, max_new_tokens=100)
>>> for text in chat.ask("What is this?", [{"type": "image", "image": "a.jpg"}]):
...     print(text, end="", flush=True)

Each question is answered from the whole conversation, images included, read anew: nothing but it is kept in between.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING, Any

from torch import Tensor

from core.errors import UserError

if TYPE_CHECKING:
    from model.processor import Processor
    from model.prompt import Message
    from model.tokenizer import Tokenizer
    from model.videollama3 import VideoLLaMA3


@dataclass(frozen=True)
class Told:
    """What an answer took.

    Attributes:
        visual_tokens: Of all images and videos of the conversation.
        kept_tokens: Those of them that the language model read.
        tokens: Of the answer, its end token included.
        first_s: Seconds until the first of them, encoding included; reading of files is not.
        rest_s: Seconds for all others.
    """

    visual_tokens: int
    kept_tokens: int
    tokens: int
    first_s: float
    rest_s: float


@dataclass
class Chat:
    """A conversation with a model.

    Attributes:
        model: On the device where it is to run.
        processor: The checkpoint's.
        conversation: What was said, as `Processor` takes it; begin it with a system message, or leave it empty.
        max_new_tokens: Where an answer is cut at the latest.
        temperature: 0 takes the most probable token, else tokens are drawn.
        top_p: Of drawn tokens, the share of probability that they are drawn from.
        told: What the last answer took; None until it has ended.
    """

    model: VideoLLaMA3
    processor: Processor
    conversation: list[Message] = field(default_factory=list)
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    told: Told | None = None

    def ask(self, text: str, media: Sequence[Mapping[str, Any]] = ()) -> Generator[str]:
        """Ask, and hear the answer piece by piece; what was heard is in the conversation when the iterator ends.

        It may be closed before: then the answer ends there. Until its first token it cannot be interrupted, so that
        `close` waits for it.

        Args:
            text: The question.
            media: {"type": "image", "image": …} and {"type": "video", "video": …}, placed before it.

        Returns:
            Pieces of text, whole characters; joined they are what `generate` and `decode` give.

        Raises:
            UserError: A file cannot be read, or the conversation does not fit the model; at once, nothing is kept.
        """
        self.told = None
        question = {"role": "user", "content": [*media, text] if media else text}
        row = self.processor([*self.conversation, question])
        self._check(row["input_ids"])
        return self._answer(question, row)

    def _check(self, input_ids: Tensor) -> None:
        words, tokens = self.model.language.get_input_embeddings().num_embeddings, len(input_ids)
        if input_ids.max() >= words:  # on CUDA the kernel would say so, and nothing would run after it
            raise UserError(f"the tokenizer has more than the model's {words} tokens: copy the one that belongs to it")
        room = self.model.config.language.get("max_position_embeddings")
        if room is not None and tokens + self.max_new_tokens > room:
            raise UserError(
                f"{tokens} tokens so far and an answer of up to {self.max_new_tokens}, the model reads {room}: "
                "begin a new conversation, give fewer images or frames, or lower max_new_tokens"
            )

    def _answer(self, question: Message, row: Any) -> Generator[str]:
        listener, said, began = _Listener(), list[str](), perf_counter()
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(self._generate, row, listener)
            try:
                for piece in _pieces(listener.tokens(), self.processor.tokenizer):
                    said.append(piece)
                    yield piece
            finally:
                listener.stopped = True
                if job.exception() is None:
                    self.conversation += [question, {"role": "assistant", "content": "".join(said)}]
                    self.told = _told(row, listener.heard, began)
            job.result()  # raises what ended it

    def _generate(self, row: Any, listener: _Listener) -> None:
        try:
            with suppress(_StoppedError):
                self.model.generate(
                    **row.to(next(self.model.parameters()).device),
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.temperature,
                    top_p=self.top_p,
                    streamer=listener,
                )
        finally:
            listener.queue.put(None)


class _StoppedError(Exception):
    """Ends `generate` from within: nobody listens any more."""


class _Listener:
    """Takes tokens from the thread that makes them to the one that reads them; a streamer of transformers'.

    Attributes:
        stopped: Set by the reader: no more is wanted.
        heard: When each token came.
    """

    def __init__(self) -> None:
        self.queue: SimpleQueue[list[int] | None] = SimpleQueue()
        self.stopped = False
        self.heard: list[float] = []

    def put(self, value: Tensor) -> None:
        """Called by `generate`: first with the prompt, which is empty where embeddings were given; then per token."""
        if self.stopped:
            raise _StoppedError
        ids = value.flatten().tolist()
        self.heard += [perf_counter()] * len(ids)
        self.queue.put(ids)

    def end(self) -> None:
        """Called by `generate`."""

    def tokens(self) -> Iterator[int]:
        """Tokens as they come."""
        while (ids := self.queue.get()) is not None:
            yield from ids


def _pieces(tokens: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Text of tokens, held back while a character is not whole: one may be spread over several tokens."""
    ids: list[int] = []
    told, shown = 0, ""  # ids[:told] are there for their spaces only, and their text is `shown`
    text = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if len(text) > len(shown) and not text.endswith("\ufffd"):
            yield text[len(shown) :]
            ids = ids[told:]
            told, shown = len(ids), tokenizer.decode(ids, skip_special_tokens=True)
            text = shown
    if len(text) > len(shown):
        yield text[len(shown) :]


def _told(row: Mapping[str, Tensor], heard: list[float], began: float) -> Told:
    keep_M = row.get("keep_mask")
    visual, kept = (0, 0) if keep_M is None else (len(keep_M), int(keep_M.sum()))
    first, last = (heard[0], heard[-1]) if heard else (began, began)
    return Told(visual, kept, len(heard), first - began, last - first)
