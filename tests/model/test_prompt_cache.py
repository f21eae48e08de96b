from __future__ import annotations

from typing import Any

import pytest
import torch

from model.config import preset
from model.language import build_language, continue_prompts, generation_config
from model.media_cache import CachedMedium
from model.prompt_cache import Prompt, PromptCache

VISUAL = 259


def _medium(identity: bytes, kept: int) -> CachedMedium:
    keep = torch.tensor([True] * kept + [False])
    patches = torch.zeros(0, 0, dtype=torch.uint8)
    return CachedMedium(patches, (1, 1, kept + 1), 1, keep, (), identity, torch.zeros(kept, 64))


@pytest.fixture
def language() -> Any:
    return build_language(preset("tiny").language).eval()


def _read(language: Any, prompt: Prompt) -> PromptCache:
    cache = PromptCache.empty(language)
    embeds = language.get_input_embeddings()(prompt.input_ids)
    with torch.no_grad():
        continue_prompts(language, [embeds], generation_config(language, 1, 0.0, 1.0), key_values=cache.key_values)
    cache.tokens = prompt.tokens
    return cache


IDS = [1, VISUAL, VISUAL, 2, VISUAL, VISUAL, VISUAL, 3]


def test_media_behind_a_token_begin_within_the_first_one() -> None:
    a, b = _medium(b"a", 2), _medium(b"b", 3)
    prompt = Prompt.of(IDS, [a, b], {VISUAL})
    expected = [([a, b], 0), ([a, b], 0), ([a, b], 1), ([b], 0), ([b], 0), ([b], 1), ([b], 2), ([], 0), ([], 0)]
    assert [prompt.media_behind(start) for start in range(9)] == expected


@pytest.mark.parametrize(
    ("ids", "media", "common"),
    [
        (IDS, "ab", 7),
        ([*IDS, 4], "ab", 8),
        (IDS[:5], "ab", 4),
        ([9, *IDS[1:]], "ab", 0),
        ([*IDS[:3], 9, *IDS[4:]], "ab", 3),
        ([*IDS, 4], "ac", 4),
        ([*IDS, 4], "ca", 1),
        ([1, 2, 3], "", 1),
    ],
)
def test_crop_leaves_the_common_beginning(language: Any, ids: list[int], media: str, common: int) -> None:
    kinds = {"a": _medium(b"a", 2), "b": _medium(b"b", 3), "c": _medium(b"c", 3)}
    cache = _read(language, Prompt.of(IDS, [kinds["a"], kinds["b"]], {VISUAL}))
    prompt = Prompt.of(ids, [kinds[name] for name in media], {VISUAL})
    assert cache.crop(prompt.tokens) == cache.key_values.get_seq_length() == common


def test_more_keys_than_known_tokens_are_dropped(language: Any) -> None:
    prompt = Prompt.of([1, 2, 3, 4, 5], [], {VISUAL})
    cache = _read(language, prompt)
    cache.tokens = prompt.tokens[:3]
    assert cache.crop(prompt.tokens) == 3
