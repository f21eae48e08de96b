"""A byte tokenizer that needs no files, with the special tokens of Qwen2.5's ChatML, for the small presets."""

from __future__ import annotations

from typing import Any

Tokenizer = Any
"""A fast tokenizer of transformers."""

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>")
"""Ids 256 to 260, after the bytes. Names and uses are those of Qwen2.5's 151643, 151644, 151645, 151655, 151656."""


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer with one token per byte of UTF-8, so no text is unknown."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Rust
    from transformers import PreTrainedTokenizerFast

    vocabulary = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    rust = Rust(models.BPE(vocab=vocabulary, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=rust, eos_token=SPECIAL[2], pad_token=SPECIAL[0])
