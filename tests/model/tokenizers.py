"""Tokenizers that are trained on the spot."""

from __future__ import annotations

from model.tokenizer import SPECIAL, Tokenizer


def word_pieces(size: int, without: str = "") -> Tokenizer:
    """A byte-level BPE tokenizer of `size` tokens in all, whose last ones are the special ones, but for one."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Rust
    from transformers import PreTrainedTokenizerFast

    special = [token for token in SPECIAL if token != without]
    rust = Rust(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    words = [f"{a}{b}{c}{d}{e}" for a in "bcdfghklm" for b in "aeiou" for c in "nrst" for d in "aeiou" for e in "lmn"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    rust.train_from_iterator(
        [" ".join(words)] * 3,
        trainers.BpeTrainer(vocab_size=size - len(special), initial_alphabet=alphabet, show_progress=False),
    )
    rust.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    assert rust.get_vocab_size() == size
    return PreTrainedTokenizerFast(tokenizer_object=rust, pad_token=SPECIAL[0])
