"""The tokens of an answer on their way from the thread that generates them to the one that reads them as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from model.tokenizer import Tokenizer


class StoppedError(Exception):
    """Raised in the streamer: ends `generate` after the reader has closed."""


class Listener:
    """A transformers streamer that passes tokens from the generating thread to the reading thread.

    Attributes:
        stopped: Set by the reader to stop generation.
        heard: Time of each token, from `perf_counter`, in seconds.
        ids: The tokens.
        reused: Tokens of the prompt that were read before.
    """

    def __init__(self) -> None:
        self.queue: SimpleQueue[list[int] | None] = SimpleQueue()
        self.stopped = False
        self.heard: list[float] = []
        self.ids: list[int] = []
        self.reused = 0

    def put(self, value: Tensor) -> None:
        """Called by `generate`: first with the prompt, which is empty for embeddings; then once per token."""
        if self.stopped:
            raise StoppedError
        ids = value.flatten().tolist()
        self.heard += [perf_counter()] * len(ids)
        self.ids += ids
        self.queue.put(ids)

    def end(self) -> None:
        """Called by `generate` at the end."""

    def tokens(self) -> Iterator[int]:
        """Yield token ids as they arrive."""
        while (ids := self.queue.get()) is not None:
            yield from ids


def pieces(tokens: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text of tokens in whole characters: one character can span several tokens."""
    ids: list[int] = []
    decoded, shown = 0, ""  # `shown` is the text of ids[:decoded], kept for its spaces only
    text = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if len(text) > len(shown) and not text.endswith("\ufffd"):
            yield text[len(shown) :]
            ids = ids[decoded:]
            decoded, shown = len(ids), tokenizer.decode(ids, skip_special_tokens=True)
            text = shown
    if len(text) > len(shown):
        yield text[len(shown) :]
