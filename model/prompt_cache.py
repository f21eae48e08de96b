"""Continue a conversation where the language model stopped: the keys and values of its first tokens.

They are reused for the longest common beginning of what was read and what is to be read. So it makes no difference why
a prompt differs: an edited message, an image that changes the sizes of others, an answer that is tokenised differently
than it was generated, or a template that rewrites earlier turns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from model.language import KeyValues, Language
from model.media_cache import CachedMedium

Token = int | tuple[bytes, int]
"""A token of text: its id. A visual token: the identity of its medium, and its place in it, from 0."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the language model is to read.

    Attributes:
        input_ids: Token ids, int64 (N,), with one placeholder per kept visual token.
        media: Images and videos in the order of their placeholders.
        tokens: The same tokens, N, with visual tokens told apart.
    """

    input_ids: Tensor
    media: Sequence[CachedMedium]
    tokens: Sequence[Token]

    @staticmethod
    def of(ids: Sequence[int], media: Sequence[CachedMedium], placeholders: Collection[int]) -> Prompt:
        """Return the prompt of token ids; `placeholders` are the ids of visual tokens."""
        visual = ((medium.identity, place) for medium in media for place in range(_count(medium)))
        tokens = [next(visual, token) if token in placeholders else token for token in ids]
        return Prompt(torch.from_numpy(np.array(ids)), media, tokens)

    def media_behind(self, start: int) -> tuple[Sequence[CachedMedium], int]:
        """Return the media of the tokens from `start` on, and how many visual tokens of the first lie before it."""
        before = sum(not isinstance(token, int) for token in self.tokens[:start])
        number = 0
        while number < len(self.media) and before >= _count(self.media[number]):
            before -= _count(self.media[number])
            number += 1
        return self.media[number:], before


def _count(medium: CachedMedium) -> int:
    return int(medium.keep_mask.sum())


@dataclass(eq=False)
class PromptCache:
    """The keys and values of one conversation, on the model's device. They take what one answer needs.

    Attributes:
        key_values: transformers' cache, which `generate` extends.
        tokens: The tokens that it begins with; it may have more or fewer.
    """

    key_values: KeyValues
    tokens: Sequence[Token] = field(default_factory=list)

    @staticmethod
    def empty(language: Language) -> PromptCache:
        """Return the cache of a conversation that has not begun."""
        from transformers import DynamicCache

        return PromptCache(DynamicCache(config=language.config))

    def crop(self, tokens: Sequence[Token]) -> int:
        """Drop what does not belong to a prompt, and its last token. Return the number of tokens that are left.

        The last token is read again, since what comes next is predicted from it.
        """
        length = self.key_values.get_seq_length()
        most = min(length, len(self.tokens), len(tokens) - 1)
        pairs = zip(self.tokens[:most], tokens, strict=False)
        common = next((place for place, (ours, theirs) in enumerate(pairs) if ours != theirs), most)
        if common < length:
            self.key_values.crop(common - length)
        return common
