"""What the language model has read, kept as keys and values: a longer prompt then costs its new tokens only.

N tokens of a prompt, W width of the language model
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.errors import UserError
from model.language import Language
from model.listener import Listener, StoppedError

if TYPE_CHECKING:
    from transformers import GenerationConfig

Embed = Callable[[int, int], Tensor]
"""Returns the embeddings (1, n, W) of a prompt's tokens from a first one to an end."""


class LanguageCache:
    """The cache of one conversation.

    A token is known by its identity, an int64: of text its id, of a visual token a negative number that only tokens of
    the same picture, in the same order, have. Placeholders have one id whatever they show. So the longest common prefix
    of identities is what a prompt has in common with what was read before.
    """

    def __init__(self, language: Language) -> None:
        """Begin with nothing read.

        Raises:
            UserError: Keys depend on how long the prompt will become.
        """
        rope = (getattr(language.config, "rope_parameters", None) or {}).get("rope_type")
        if rope in ("dynamic", "longrope"):
            raise UserError(f"rope_type {rope} changes what was read as a prompt grows: use vl3syn chat for this model")
        self.language = language
        self._clear()

    def _clear(self) -> None:
        self._identities_N = torch.zeros(0, dtype=torch.long)
        self._cache: Any = None

    @torch.no_grad()
    def read(self, identities_N: Tensor, embed: Embed) -> None:
        """Let the model read these tokens, from the first one that is not cached on. Drop what is cached beyond them.

        Args:
            identities_N: Identities on the CPU; at least one.
            embed: Returns the tokens' embeddings.
        """
        cache, before_N = self._cache, self._identities_N
        known = _common(before_N, identities_N)
        self._clear()  # an error leaves nothing that is half read
        if cache is None or not known:
            cache = _new_cache(self.language)
        elif known < len(before_N):
            cache.crop(known - len(before_N))
        if known < len(identities_N):
            self.language.model(inputs_embeds=embed(known, len(identities_N)), use_cache=True, **self._passed(cache))
        self._cache, self._identities_N = cache, identities_N

    @torch.no_grad()
    def generate(
        self, ids_N: Tensor, identities_N: Tensor, embed: Embed, settings: GenerationConfig, listener: Listener
    ) -> None:
        """Continue a prompt with transformers' `generate`. What is generated is cached, too.

        Args:
            ids_N: Token ids on the CPU; at least two, the last of them of text.
            identities_N: Their identities.
            embed: Returns their embeddings.
            settings: Settings of `generate`.
            listener: Hears each new token. When it has stopped, so does the answer.
        """
        self.read(identities_N[:-1], embed)
        cache, prompt_1N = self._cache, ids_N[None].to(self.language.device)
        self._clear()
        with suppress(StoppedError):
            self.language.generate(
                prompt_1N,
                attention_mask=torch.ones_like(prompt_1N),
                generation_config=settings,
                streamer=_WithoutPrompt(listener),
                **self._passed(cache),
            )
        heard_N = torch.cat([identities_N, torch.tensor(listener.ids, dtype=torch.long)])
        cached = cache.get_seq_length()
        if cached > len(heard_N):  # `generate` may be a step ahead of its streamer
            cache.crop(len(heard_N) - cached)
        self._cache, self._identities_N = cache, heard_N[:cached]

    def _passed(self, cache: Any) -> dict[str, Any]:
        """Return the cache under the name that this version of transformers has for it."""
        names = inspect.signature(self.language.model.forward).parameters
        return {"cache" if "cache" in names else "past_key_values": cache}


class _WithoutPrompt:
    """Passes new tokens on to a listener: `generate` begins with the prompt's."""

    def __init__(self, listener: Listener) -> None:
        self.listener, self._begun = listener, False

    def put(self, value: Tensor) -> None:
        self.listener.put(value if self._begun else value[:, :0])
        self._begun = True

    def end(self) -> None:
        self.listener.end()


def _new_cache(language: Language) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=language.config)


def _common(a_N: Tensor, b_N: Tensor) -> int:
    """Return the length of the longest common prefix."""
    shorter = min(len(a_N), len(b_N))
    differing = (a_N[:shorter] != b_N[:shorter]).nonzero()
    return int(differing[0]) if len(differing) else shorter
