"""A tokenizer that needs no file: bytes, and the special tokens of Qwen2.5's ChatML. For the `tiny` preset."""

from __future__ import annotations

from typing import Any

Tokenizer = Any
"""A fast tokenizer of transformers."""

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>")
"""Ids 256 to 260, behind the bytes; named and used as Qwen2.5's 151643, 151644, 151645, 151655 and 151656."""


def byte_tokenizer() -> Tokenizer:
    """One token per byte of UTF-8, so that no text is unknown."""
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
