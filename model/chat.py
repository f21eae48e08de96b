"""Chat about images and videos, with answers streamed as they are generated.

>>> chat = Chat(model, processor, max_new_tokens=100)
>>> for text in chat.ask("What is this?", [{"type": "image", "image": "a.jpg"}]):
...     print(text, end="", flush=True)

Images and videos are encoded once, and the language model continues where it stopped: a further question costs its own
tokens only. Answers are the same as if the whole conversation was processed again.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.errors import UserError
from model.language import end_tokens
from model.listener import Listener, StoppedError, pieces
from model.media_cache import CachedMedium, MediaCache
from model.prompt_cache import Prompt, PromptCache

if TYPE_CHECKING:
    from model.processor import Processor
    from model.prompt import Message
    from model.videollama3 import VideoLLaMA3


@dataclass(frozen=True)
class GenerationStats:
    """Token counts and times of one answer.

    Attributes:
        visual_tokens: Visual tokens of all images and videos of the conversation, before pruning.
        kept_tokens: Visual tokens that the language model reads.
        prompt_tokens: Tokens of the conversation so far, without pruned ones.
        reused_tokens: Those of them that were read for an earlier answer, and not again.
        tokens: Tokens of the answer, its end token included.
        cut: Whether `max_new_tokens` ended the answer, and not its end token or the reader.
        first_s: Seconds until the first token. Includes encoding, but not reading of files.
        rest_s: Seconds for all other tokens.
    """

    visual_tokens: int
    kept_tokens: int
    prompt_tokens: int
    reused_tokens: int
    tokens: int
    cut: bool
    first_s: float
    rest_s: float

    @property
    def line(self) -> str:
        """The numbers as a line for people."""
        visual = "no visual tokens"
        if self.visual_tokens:
            visual = f"{self.visual_tokens:,} visual tokens, {self.kept_tokens / self.visual_tokens:.0%} kept"
        rate = f", then {(self.tokens - 1) / self.rest_s:.1f} tokens/s" if self.rest_s else ""
        reused = f", {self.reused_tokens:,} of {self.prompt_tokens:,} tokens known" if self.reused_tokens else ""
        return f"{visual}{reused}; first token after {self.first_s:.2f} s{rate}"


@dataclass
class Chat:
    """A conversation with a model.

    Attributes:
        model: The model, on the device where it runs. Its weights must not change during the conversation.
        processor: The checkpoint's processor.
        conversation: All messages so far, as `Processor` reads them. Start it with a system message, or leave it empty.
        max_new_tokens: Maximum tokens of an answer.
        temperature: 0 takes the most probable token; otherwise tokens are sampled.
        top_p: Nucleus sampling: sample from the most probable tokens with this total probability.
        media_cache: Encoded images and videos. Conversations with one model and processor may share it.
        stats: Statistics of the last answer; None until it has ended.
        media: Images and videos of the last question's prompt, in its order. Those that were not encoded before have
            their patches.
    """

    model: VideoLLaMA3
    processor: Processor
    conversation: list[Message] = field(default_factory=list)
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    media_cache: MediaCache = field(default_factory=MediaCache)
    stats: GenerationStats | None = None
    media: Sequence[CachedMedium] = ()
    _prompt_cache: PromptCache | None = field(default=None, init=False, repr=False)

    def ask(self, text: str, media: Sequence[Mapping[str, Any]] = ()) -> Generator[str]:
        """Ask a question, and stream the answer. When the iterator ends, both are added to the conversation.

        Closing the iterator early ends the answer there. Generation cannot be interrupted before its first token, so
        `close` waits for that.

        Args:
            text: The question.
            media: {"type": "image", "image": …} and {"type": "video", "video": …}, placed before the question.

        Returns:
            Pieces of text, in whole characters. Joined, they equal the output of `generate` and `decode`.

        Raises:
            UserError: The conversation does not fit the model. This call raises it, and the conversation is unchanged.
            BadSampleError: The same for an image or a video that cannot be read.
        """
        return self.reply({"role": "user", "content": [*media, text] if media else text})

    def reply(self, question: Message) -> Generator[str]:
        """Answer a whole message, whose texts and media may stand in any order. All else is as in `ask`."""
        self.stats = None
        tokens, media = self.processor.prepare([*self.conversation, question], self.media_cache.read)
        config = self.model.config
        prompt = Prompt.of(tokens.ids, media, {config.image_token_id, config.video_token_id})
        self._check(prompt.input_ids)
        self.media = media
        return self._answer(question, prompt)

    def release(self) -> None:
        """Free the keys and values, which lie on the model's device. The next question reads the conversation anew."""
        self._prompt_cache = None

    def _check(self, input_ids: Tensor) -> None:
        words, tokens = self.model.language.get_input_embeddings().num_embeddings, len(input_ids)
        if input_ids.max() >= words:  # a CUDA kernel would fail, and nothing would run after it
            raise UserError(f"the tokenizer has more than the model's {words} tokens: copy the one that belongs to it")
        room = self.model.config.language.get("max_position_embeddings")
        if room is not None and tokens + self.max_new_tokens > room:
            raise UserError(
                f"{tokens} tokens so far and an answer of up to {self.max_new_tokens}, the model reads {room}: "
                "begin a new conversation, give fewer images or frames, or lower max_new_tokens"
            )

    def _answer(self, question: Message, prompt: Prompt) -> Generator[str]:
        listener, said, began = Listener(), list[str](), perf_counter()
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(self._generate, prompt, listener)
            try:
                for piece in pieces(listener.tokens(), self.processor.tokenizer):
                    said.append(piece)
                    yield piece
            finally:
                listener.stopped = True
                if job.exception() is None:
                    self.conversation += [question, {"role": "assistant", "content": "".join(said)}]
                    self.stats = self._stats(prompt, listener, began)
            job.result()  # raises the error of `generate`

    def _stats(self, prompt: Prompt, listener: Listener, began: float) -> GenerationStats:
        heard = listener.heard
        first, last = (heard[0], heard[-1]) if heard else (began, began)
        return GenerationStats(
            visual_tokens=sum(len(medium.keep_mask) for medium in prompt.media),
            kept_tokens=sum(int(medium.keep_mask.sum()) for medium in prompt.media),
            prompt_tokens=len(prompt.tokens),
            reused_tokens=listener.reused,
            tokens=len(heard),
            cut=len(heard) == self.max_new_tokens and listener.ids[-1] not in end_tokens(self.model.language),
            first_s=first - began,
            rest_s=last - first,
        )

    def _generate(self, prompt: Prompt, listener: Listener) -> None:
        cache, self._prompt_cache = self._prompt_cache, None  # an error may leave it with half of a token
        try:
            if cache is None:
                cache = PromptCache.empty(self.model.language)
            listener.reused = cache.crop(prompt.tokens)
            with suppress(StoppedError):
                self.model.generate(
                    prompt.input_ids.to(next(self.model.parameters()).device),
                    visual=self._visual(prompt, listener.reused),
                    key_values=cache.key_values,
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.temperature,
                    top_p=self.top_p,
                    streamer=listener,
                )
            cache.tokens = [*prompt.tokens, *listener.ids]
            self._prompt_cache = cache
        finally:
            listener.queue.put(None)

    def _visual(self, prompt: Prompt, start: int) -> Tensor | None:
        """Return the visual tokens (K, W) of the prompt's tokens from `start` on, on the model's device."""
        media, before = prompt.media_behind(start)
        if not media:
            return None
        visual = torch.cat(self.media_cache.encode(self.model, media))
        return visual[before:].to(next(self.model.parameters()).device)
