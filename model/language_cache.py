"""What the language model has read, kept as keys and values: a longer prompt then costs its new tokens only.

N tokens of a prompt, W width of the language model
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.language import KeyValues, Language, continue_prompts, name_of_key_values
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
        """Begin with nothing read."""
        self.language = language
        self._clear()

    def _clear(self) -> None:
        self._identities_N = torch.zeros(0, dtype=torch.long)
        self._key_values: KeyValues = None

    @torch.no_grad()
    def read(self, identities_N: Tensor, embed: Embed) -> None:
        """Let the model read these tokens, from the first one that is not cached on. Drop what is cached beyond them.

        Args:
            identities_N: Identities on the CPU; at least one.
            embed: Returns the tokens' embeddings.
        """
        key_values, known = self._take(identities_N)
        if known < len(identities_N):
            named = {name_of_key_values(self.language): key_values}
            self.language.model(inputs_embeds=embed(known, len(identities_N)), use_cache=True, **named)
        self._key_values, self._identities_N = key_values, identities_N

    @torch.no_grad()
    def generate(self, identities_N: Tensor, embed: Embed, settings: GenerationConfig, listener: Listener) -> None:
        """Continue a prompt with transformers' `generate`. What is generated is cached, too.

        Args:
            identities_N: Identities on the CPU; at least two, the last of them of text.
            embed: Returns the tokens' embeddings.
            settings: Settings of `generate`.
            listener: Hears each new token. When it has stopped, so does the answer.
        """
        key_values, known = self._take(identities_N[:-1])  # what comes next is predicted from the last token
        listener.reused = known
        embeds_NW = embed(known, len(identities_N))[0]
        with suppress(StoppedError):
            continue_prompts(self.language, [embeds_NW], settings, listener, key_values)
        heard_N = torch.cat([identities_N, torch.tensor(listener.ids, dtype=torch.long)])
        cached = key_values.get_seq_length()
        if cached > len(heard_N):  # `generate` may be a step ahead of its streamer
            key_values.crop(len(heard_N) - cached)
        self._key_values, self._identities_N = key_values, heard_N[:cached]

    def _take(self, identities_N: Tensor) -> tuple[KeyValues, int]:
        """Return what is cached, cropped to what it has in common with these tokens, and how many these are.

        Until it is put back nothing is cached: an error leaves nothing that is half read.
        """
        key_values, before = self._key_values, len(self._identities_N)
        known = _common(self._identities_N, identities_N)
        self._clear()
        if key_values is None or not known:
            return _new_cache(self.language), 0
        if known < before:
            key_values.crop(known - before)
        return key_values, known


def _new_cache(language: Language) -> KeyValues:
    from transformers import DynamicCache

    return DynamicCache(config=language.config)


def _common(a_N: Tensor, b_N: Tensor) -> int:
    """Return the length of the longest common prefix."""
    shorter = min(len(a_N), len(b_N))
    differing = (a_N[:shorter] != b_N[:shorter]).nonzero()
    return int(differing[0]) if len(differing) else shorter
