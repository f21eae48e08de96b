"""The model that a training starts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model import Processor, VideoLLaMA3
from model.evaluate import compute_loss
from model.training.data.annotations import AnnotationSource
from model.training.metrics_log import read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from tests.model.tokenizers import word_pieces
from tests.model.training import training_data

SIZES: dict[str, Any] = {
    "vision": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2},
    "language": {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}


@pytest.mark.parametrize("model", [SIZES, {"preset": "tiny"}], ids=["sizes", "preset"])
def test_new_model_learns_with_a_tokenizer_of_its_own(tmp_path: Path, model: dict[str, Any]) -> None:
    """It failed with an IndexError before: ids of the tokenizer beyond the preset's vocabulary."""
    word_pieces(600).save_pretrained(tmp_path / "tokenizer")
    written = training_data.recipe(tmp_path, steps=4)
    written |= {"model": {**model, "tokenizer": str(tmp_path / "tokenizer")}, "stages": written["stages"][1:]}
    exported = train(parse_recipe(written, "test"), tmp_path / "out")
    losses = [r["loss"] for r in read_metrics(tmp_path / "out") if r["kind"] == "step"]
    assert losses[-1] < losses[0]
    opened, processor = VideoLLaMA3.from_pretrained(exported), Processor.from_pretrained(exported)
    assert opened.language.get_input_embeddings().num_embeddings == 640
    assert opened.config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>") == 598
    samples = map(AnnotationSource("qa", str(tmp_path / "qa/qa.jsonl")).sample, range(9))
    assert compute_loss(opened, processor, samples).samples == 9
    assert train(parse_recipe(written, "test"), tmp_path / "out") == exported, "the stored recipe is the same"


def test_new_model_without_a_tokenizer_reads_bytes(tmp_path: Path) -> None:
    written = training_data.recipe(tmp_path, steps=1) | {"model": SIZES}
    exported = train(parse_recipe({**written, "stages": written["stages"][:1]}, "test"), tmp_path / "out")
    assert len(Processor.from_pretrained(exported).tokenizer) == 261
