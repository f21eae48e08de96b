"""Which layers take an adapter."""

from __future__ import annotations

import pytest
import torch

from core.errors import UserError
from model import VideoLLaMA3
from model.config import preset
from model.training.lora import add_adapters, merged
from model.training.stage import Lora


def _model(tied: bool) -> VideoLLaMA3:
    config = preset("tiny")
    language = {**config.language, "tie_word_embeddings": tied}
    return VideoLLaMA3(config.model_copy(update={"language": language}))


@pytest.mark.parametrize(("tied", "target"), [(True, "lm_head"), (True, "embed_tokens"), (False, "embed_tokens")])
def test_adapter_that_no_export_could_have_is_refused(tied: bool, target: str) -> None:
    with pytest.raises(UserError, match=rf"^lora: {target}: the embedding table takes no adapter"):
        add_adapters(_model(tied), Lora(targets=("q_proj", target)))


def test_head_of_its_own_takes_an_adapter_that_is_merged() -> None:
    model, lora, ids = _model(tied=False), Lora(r=4, alpha=8, targets=("lm_head",)), torch.arange(3, 40)
    plain = model.state_dict()
    add_adapters(model, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    exported = _model(tied=False).eval()
    exported.load_state_dict(merged(model.state_dict(), lora))
    with torch.no_grad():
        torch.testing.assert_close(exported(ids).logits, model.eval()(ids).logits, atol=1e-4, rtol=1e-4)
    assert not torch.equal(exported.language.lm_head.weight, plain["language.lm_head.weight"])
