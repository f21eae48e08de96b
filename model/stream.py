"""A film that is watched as it comes. Questions are answered from what was seen so far.

>>> stream = Stream(model, processor)
>>> for time, frame in enumerate(camera):
...     stream.push(frame, time)
>>> print("".join(stream.ask("What happened?")))

Each frame is encoded once, and read by the language model once, until the oldest frames leave the window.

    N tokens of the prompt, W width of the language model
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from model.chat import GenerationStats
from model.frame_window import FrameWindow, Picture, SeenFrame, tokens_of
from model.language import end_tokens, generation_config
from model.language_cache import LanguageCache
from model.listener import Listener, pieces
from model.media import frame_placeholders
from model.prompt import Message, Placeholders, parse_conversation, tokenize

if TYPE_CHECKING:
    from model.processor import Processor
    from model.videollama3 import VideoLLaMA3

_FRAMES = {"type": "video", "video": "the frames since the question before"}


@dataclass(frozen=True)
class _Exchange:
    """A question, its answer, and how many frames had come when it was asked."""

    question: str
    answer: str
    count: int


@dataclass(frozen=True, eq=False)
class _Prompt:
    """Token ids (N,), their identities for `LanguageCache` (N,), and the frames at their placeholders."""

    ids_N: Tensor
    identities_N: Tensor
    frames: tuple[SeenFrame, ...]


@dataclass
class Stream:
    """A film that is still running, and a conversation about it. For one thread at a time.

    The prompt is that of training on streams: what `Processor` makes of parts of a film with `until`. Before a question
    stand the frames since the question before. Times in it count from the window's first frame (`start`).

    Attributes:
        model: The model, on the device where it runs.
        processor: The checkpoint's processor.
        system: The system prompt; empty for none.
        window: Most frames that are remembered. Default: the processor's `max_frames`.
        leaving: Oldest frames that leave together when the window is full, and with them the questions that were asked
            before the first that stays. Then the language model reads again all that stays. Default: a quarter of
            the window.
        max_new_tokens: Maximum tokens of an answer.
        temperature: 0 takes the most probable token; otherwise tokens are sampled.
        top_p: Nucleus sampling: sample from the most probable tokens with this total probability.
        stats: Statistics of the last answer; None until it has ended.
    """

    model: VideoLLaMA3
    processor: Processor
    system: str = ""
    window: int | None = None
    leaving: int | None = None
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    stats: GenerationStats | None = None
    _exchanges: list[_Exchange] = field(default_factory=list, init=False, repr=False)
    _answering: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        length = self.processor.config.max_frames if self.window is None else self.window
        leaving = max(length // 4, 1) if self.leaving is None else self.leaving
        if not 1 <= leaving <= length:
            raise UserError(f"window {length}, leaving {leaving}: give 1 frame or more, and leaving up to window")
        self._frames = FrameWindow(self.model, self.processor.config, length, leaving)
        self._cache = LanguageCache(self.model.language)

    @property
    def start(self) -> float | None:
        """Time of the window's first frame, in seconds; None before there is one."""
        return self._frames.frames[0].time if self._frames.frames else None

    def push(self, frame: Picture, time: float) -> None:
        """Show the next frame. While an answer is generated, it is encoded, and read after the answer.

        Args:
            frame: A PIL image or an array (H, W, 3), uint8, of the first frame's size.
            time: Seconds, later than the frame before.

        Raises:
            BadSampleError: The frame is none, has another size, or does not come later. Nothing has changed.
            UserError: The window is too large for the budget of visual tokens; or what is remembered does not fit the
                model, and then the frame is remembered nevertheless.
        """
        if self._frames.push(frame, time):
            self._exchanges = [exchange for exchange in self._exchanges if exchange.count > self._frames.first]
            self._cache = LanguageCache(self.model.language)  # an answer in progress keeps the other one
        if not self._answering:
            prompt = self._prompt(None)
            self._cache.read(prompt.identities_N, lambda first, end: self._embed(prompt, first, end))

    def ask(self, text: str) -> Generator[str]:
        """Ask about what was seen so far, and stream the answer. When the iterator ends, both are remembered.

        Frames that are pushed meanwhile come after this question. Closing the iterator early ends the answer there.

        Returns:
            Pieces of text, in whole characters.

        Raises:
            UserError: The conversation does not fit the model, or an answer is in progress.
            BadSampleError: The text is not valid Unicode.
        """
        self._refuse_second()
        return self._answer(text, self._prompt(text), self._frames.count)

    def _refuse_second(self) -> None:
        if self._answering:
            raise UserError("an answer is in progress: read it to its end, or close it")

    def _answer(self, question: str, prompt: _Prompt, count: int) -> Generator[str]:
        self._refuse_second()
        listener, said, began = Listener(), list[str](), perf_counter()
        self.stats, self._answering = None, True
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(self._generate, self._cache, prompt, listener)
            try:
                for piece in pieces(listener.tokens(), self.processor.tokenizer):
                    said.append(piece)
                    yield piece
            finally:
                listener.stopped = True
                failed = job.exception() is not None  # waits for the end
                self._answering = False
                if not failed:
                    if count > self._frames.first or not self._frames.first:  # else it has left meanwhile
                        self._exchanges.append(_Exchange(question, "".join(said), count))
                    self.stats = self._stats(prompt, listener, began)
            job.result()  # raises the error of `generate`

    def _generate(self, cache: LanguageCache, prompt: _Prompt, listener: Listener) -> None:
        settings = generation_config(self.model.language, self.max_new_tokens, self.temperature, self.top_p)
        try:
            cache.generate(
                prompt.identities_N,
                lambda first, end: self._embed(prompt, first, end),
                settings,
                listener,
            )
        finally:
            listener.queue.put(None)

    def _prompt(self, question: str | None) -> _Prompt:
        """Return the prompt of a question; without one, that of all frames, to the last placeholder."""
        frames, config = tuple(self._frames.frames), self.processor.config
        messages, placeholders = self._turns(question or "")
        tokens = tokenize(
            parse_conversation(messages),
            placeholders,
            self.processor.tokenizer,
            template=self.processor.chat_template,
            image_token=config.image_token,
            video_token=config.video_token,
            generation_prompt=True,
        )
        ids_N = torch.from_numpy(np.array(tokens.ids))
        visual_N = ids_N == self.processor.tokenizer.convert_tokens_to_ids(config.video_token)
        shown_K = torch.tensor([-1 - frame.number for frame in frames for _ in range(frame.kept)], dtype=torch.long)
        identities_N = ids_N.masked_scatter(visual_N, shown_K)
        end = len(ids_N) if question is not None else int(visual_N.nonzero()[-1]) + 1
        self._check(ids_N[:end])
        return _Prompt(ids_N[:end], identities_N[:end], frames)

    def _turns(self, question: str) -> tuple[list[Message], list[list[Placeholders]]]:
        """Return the messages up to a question, and the placeholders of the frames before each question."""
        frames, before = self._frames.frames, 0
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        placeholders: list[list[Placeholders]] = []
        for turn in [*self._exchanges, _Exchange(question, "", self._frames.count)]:
            shown = [frame for frame in frames if before <= frame.number < turn.count]
            times = [frame.time - frames[0].time for frame in shown]
            placeholders.append(frame_placeholders(times, [frame.kept for frame in shown]))
            messages.append({"role": "user", "content": [_FRAMES, turn.question]})
            messages.append({"role": "assistant", "content": turn.answer})
            before = turn.count
        return messages[:-1], placeholders

    def _check(self, ids_N: Tensor) -> None:
        words = self.model.language.get_input_embeddings().num_embeddings
        if ids_N.max() >= words:  # a CUDA kernel would fail, and nothing would run after it
            raise UserError(f"the tokenizer has more than the model's {words} tokens: copy the one that belongs to it")
        room = self.model.config.language.get("max_position_embeddings")
        if room is not None and len(ids_N) + self.max_new_tokens > room:
            raise UserError(
                f"{len(ids_N)} tokens so far and an answer of up to {self.max_new_tokens}, the model reads {room}: "
                "give a smaller window, or lower max_new_tokens"
            )

    def _embed(self, prompt: _Prompt, first: int, end: int) -> Tensor:
        """Return the embeddings of the tokens from `first` to `end`, (1, end - first, W)."""
        embedding: Any = self.model.language.get_input_embeddings()
        device = embedding.weight.device
        embeds_1NW: Tensor = embedding(prompt.ids_N[None, first:end].to(device))
        visual_N = prompt.identities_N < 0
        before, within = int(visual_N[:first].sum()), visual_N[first:end].nonzero().squeeze(1)
        if not len(within):
            return embeds_1NW
        visual_KW = tokens_of(prompt.frames, before, before + len(within))
        return embeds_1NW.index_copy(1, within.to(device), visual_KW[None].to(embeds_1NW.dtype))

    def _stats(self, prompt: _Prompt, listener: Listener, began: float) -> GenerationStats:
        heard = listener.heard
        first, last = (heard[0], heard[-1]) if heard else (began, began)
        return GenerationStats(
            visual_tokens=sum(len(frame.keep_N) for frame in prompt.frames),
            kept_tokens=sum(frame.kept for frame in prompt.frames),
            prompt_tokens=len(prompt.ids_N),
            reused_tokens=listener.reused,
            tokens=len(heard),
            cut=len(heard) == self.max_new_tokens and listener.ids[-1] not in end_tokens(self.model.language),
            first_s=first - began,
            rest_s=last - first,
        )
