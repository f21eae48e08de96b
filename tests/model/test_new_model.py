"""New models of a preset or of sizes have the vocabulary of their tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from model import Processor, VideoLLaMA3
from model.config import LanguageSizes, VisionConfig, preset
from model.new_model import configure, configure_preset
from tests.model.tokenizers import word_pieces

VISION = VisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    """A processor with a tokenizer of 600 tokens, whose special tokens are the last five."""
    folder = tmp_path_factory.mktemp("tokenizer")
    word_pieces(600).save_pretrained(folder)
    return Processor.from_pretrained(folder)


def _loss(model: VideoLLaMA3, processor: Processor) -> float:
    image = {"type": "image", "image": Image.new("RGB", (56, 56))}
    turns = [{"role": "user", "content": [image, "What?"]}, {"role": "assistant", "content": "Black."}]
    loss = model(**processor(turns, labels=True)).loss
    assert loss is not None
    return loss.item()


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_sizes_are_those_of_the_language_model(pieces: Processor, kind: Any) -> None:
    model = VideoLLaMA3(configure(VISION, LanguageSizes(model_type=kind, **SIZES), pieces))
    layer = model.language.model.layers[0]
    assert (len(model.language.model.layers), len(model.vision.layers)) == (2, 1)
    assert layer.self_attn.q_proj.weight.shape == (48, 48)  # 4 heads of 12, where Qwen3's own default is 128
    assert layer.self_attn.k_proj.weight.shape == (24, 48)
    assert layer.mlp.gate_proj.weight.shape == (64, 48)
    assert model.language.model.embed_tokens.weight.shape == (640, 48)  # 600 rounded up to a multiple of 64
    assert model.config.language["rope_parameters"]["rope_theta"] == 1e6
    assert _loss(model, pieces) > 0


def test_answers_end_at_the_end_token_of_the_tokenizer(pieces: Processor) -> None:
    model = VideoLLaMA3(configure(VISION, LanguageSizes(**SIZES), pieces))
    assert model.language.generation_config.eos_token_id == pieces.tokenizer.convert_tokens_to_ids("<|im_end|>") == 597
    row = pieces([{"role": "user", "content": "What?"}])
    assert len(model.generate(**row, max_new_tokens=3)) == 1


def test_heads_and_widths_have_the_defaults_of_a_plain_decoder() -> None:
    language = LanguageSizes(hidden_size=96, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    fields = configure(VISION, language, Processor.tiny()).language
    assert (fields["num_key_value_heads"], fields["head_dim"], fields["tie_word_embeddings"]) == (4, 24, False)
    assert fields["vocab_size"] == 320  # the byte tokenizer has 261


def test_patches_have_the_size_of_the_encoder(pieces: Processor) -> None:
    vision = VISION.model_copy(update={"patch_size": 8})
    language = LanguageSizes(**SIZES)
    config = configure(vision, language, pieces)
    assert config.vision.patch_dim == 3 * 64
    assert _loss(VideoLLaMA3(config), pieces.with_patch_size(8)) > 0


def test_tokenizer_without_the_end_of_a_turn_is_refused() -> None:
    """Its pieces would be learned, and the last of them would end any answer."""
    processor = Processor(word_pieces(600, without="<|im_end|>"))
    with pytest.raises(
        ValueError, match=r"the tokenizer has no token <\|im_end\|>, which ends a turn: add it as a special"
    ):
        configure(VISION, LanguageSizes(**SIZES), processor)


@pytest.mark.parametrize("name", ["tiny", "small", "2b"])
def test_preset_takes_the_vocabulary_of_another_tokenizer(pieces: Processor, name: str) -> None:
    config = configure_preset(name, pieces)
    assert (config.image_token_id, config.video_token_id) == (598, 599)
    assert config.language == preset(name).language | {"vocab_size": 640, "bos_token_id": None, "eos_token_id": 597}
    if name == "tiny":
        assert _loss(VideoLLaMA3(config), pieces) > 0


def test_preset_keeps_its_table_with_its_own_tokenizer() -> None:
    """As the published checkpoints, whose tables have more rows than Qwen2.5 has tokens."""
    for name in ("tiny", "small"):
        assert configure_preset(name, Processor.tiny()) == preset(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 50}, "hidden_size 50 is no multiple of num_attention_heads 4: change one of them, or give"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is no multiple of num_key_value_heads 3: change one"),
        ({"hidden_size": 60}, "head_dim 15: rotary positions need an even one"),
        ({"head_dim": 7}, "head_dim 7: rotary positions need an even one"),
        ({"hiden_size": 50}, "unknown key 'hiden_size'; did you mean 'hidden_size'?"),
        ({"vocab_size": 600}, "vocab_size: comes from the tokenizer: leave it out"),
        ({"hidden_size": 1 << 30}, "less than or equal to 131072"),
        ({"model_type": "mamba"}, "'qwen2', 'qwen3' or 'llama'"),
    ],
)
def test_sizes_that_do_not_fit_are_a_one_line_error(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        LanguageSizes.model_validate(SIZES | change)
    assert said in str(refused.value)
