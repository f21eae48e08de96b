"""The texts of CLIP: the same vectors as open_clip's own text tower, without computing the padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pyarrow as pa
import pytest
import torch

from filters.clip_text import ClipText
from filters.unpadded_texts import encode_tokens
from tests.checkpoints import clip
from tests.filters.vectors import check_tolerance, vectors

TOKENS = open_clip.get_tokenizer("ViT-B-32")(["", *(" ".join(["a red bus"] * n) for n in (1, 30, 4, 5, 24, 2, 9))])
"""Texts of 2 to 77 tokens, the start and the end included; those of 14 and 17 lie on both sides of a step."""

LOW_END = 2
"""The end token of a vocabulary in which others have higher numbers, as in `ViT-H-14-worldwide`."""


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("CLIP", {}),
        ("CLIP", {"no_causal_mask": True}),
        ("CLIP", {"pool_type": "last"}),
        ("CLIP", {"pool_type": "eos", "eos_id": LOW_END}),
        ("CustomTextCLIP", {}),
    ],
)
@pytest.mark.parametrize("output_dict", [False, True])
def test_texts_of_any_length_equal_open_clip(kind: str, text: dict[str, Any], output_dict: bool) -> None:
    """Towers that see what stands behind the end, or read another token, too."""
    network = clip(kind, **text)
    network.output_dict = output_dict
    tokens = torch.where(TOKENS == 49407, LOW_END, TOKENS) if "eos_id" in text else TOKENS
    theirs = network.encode_text(tokens, normalize=True).detach()
    torch.testing.assert_close(encode_tokens(network, tokens, torch.device("cpu")), theirs)
    assert torch.pdist(theirs).min() > 0.01, "else any order would pass"


def test_padding_behind_the_texts_is_not_computed() -> None:
    network, shapes = clip(), []
    network.transformer.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[:2])))
    ends = (TOKENS.argmax(-1) + 1).tolist()
    assert ends == [2, 5, 77, 14, 17, 74, 8, 29]
    encode_tokens(network, TOKENS, torch.device("cpu"))
    assert shapes == [(4, 16), (2, 32), (2, 77)]


def test_bfloat16_text_vectors_are_within_the_tolerance(tiny_clip: Path) -> None:
    texts = ["a cat", "two dogs in the snow", "a red bus", "children on a beach", "the sky at night"]
    batch = pa.table({"coarse_caption": texts, "alt_text": pa.nulls(len(texts), pa.string())})
    towers = (ClipText(encoder=str(tiny_clip), precision=kind).load() for kind in ("float32", "bfloat16"))
    check_tolerance(*(vectors(tower(batch), "text_embedding") for tower in towers))


def test_texts_equal_open_clip_and_missing_texts_are_null(tiny_clip: Path) -> None:
    texts = ["a cat", "two dogs in the snow", "a cat"]
    network = open_clip.create_model(f"local-dir:{tiny_clip}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{tiny_clip}")(texts)
    with torch.inference_mode():
        theirs = network.encode_text(tokens, normalize=True).numpy()
    stage = ClipText(encoder=str(tiny_clip), precision="float32")
    batch = pa.table({"coarse_caption": [*texts, None, "  "], "alt_text": [None, "a cat", None, None, "a cat"]})
    facts = stage.load()(batch)
    assert facts.select(stage.writes.names).schema.equals(stage.writes)
    assert (vectors(facts.slice(0, 3), "text_embedding") * theirs).sum(1) == pytest.approx(1, abs=1e-4)
    assert facts["error"].to_pylist() == [None] * 3 + ["no text: the caption is empty"] * 2
    alts = facts["alt_text_embedding"]
    assert alts.is_valid().to_pylist() == [False, True, False, False, False], "a failed row has no facts"
    assert alts[1].as_py() == pytest.approx(facts["text_embedding"][0].as_py(), abs=1e-3)


def test_chosen_texts_have_columns_of_their_own(tiny_clip: Path) -> None:
    stage = ClipText(encoder=str(tiny_clip), texts=("alt_text", "short_caption", "pool.title"))
    names = ["alt_text_embedding", "short_caption_embedding", "pool_title_embedding"]
    assert (tuple(stage.reads), stage.writes.names) == (("alt_text", "short_caption", "pool.title"), names)
    texts = {"alt_text": ["a cat", None, "a cat"], "short_caption": ["two dogs", "a cat", " "]}
    facts = stage.load()(pa.table({**texts, "pool.title": ["a cat", "a cat", None]}))
    assert facts.select(names).schema.equals(stage.writes)
    assert facts["error"].to_pylist() == [None, None, "no text: the caption is empty"]
    valid = [facts[name].is_valid().to_pylist() for name in names]
    assert valid == [[True, False, False], [True, True, False], [True, True, False]]
    cat = facts["alt_text_embedding"][0].as_py()
    for other in (facts["short_caption_embedding"][1], facts["pool_title_embedding"][1]):
        assert other.as_py() == pytest.approx(cat, abs=1e-3)
    alone = ClipText(encoder=str(tiny_clip), texts=("alt_text",)).load()(pa.table({"alt_text": ["a cat", None, ""]}))
    assert alone["error"].to_pylist() == [None] * 3, "a missing alt text is no error"
    assert alone["alt_text_embedding"].is_valid().to_pylist() == [True, False, False]


def test_column_of_the_pool_without_texts_is_refused(tiny_clip: Path) -> None:
    tower = ClipText(encoder=str(tiny_clip), texts=("pool.size",)).load()
    with pytest.raises(ValueError, match=r"pool\.size is int64, not text: name another column in `texts`"):
        tower(pa.table({"pool.size": [None, 3]}))
