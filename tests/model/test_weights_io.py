from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import UserError
from model import Processor, VideoLLaMA3
from model.config import preset
from model.weights_io import ORIGINAL, TRANSFORMERS, Table, rename
from tests.model.oracles import Sample, ours_of, packed, whole_oracle

SAMPLE = Sample.of((1, 4, 6), (3, 4, 4), seed=1, pruned=True)


@pytest.fixture(scope="module")
def oracle() -> Any:
    return whole_oracle()


def _logits(oracle: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = oracle(**SAMPLE.theirs()).logits[0]
    return logits


def _close(model: VideoLLaMA3, oracle: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model(**packed(SAMPLE)).logits, _logits(oracle), atol=2e-5, rtol=0)


def test_weights_saved_by_transformers_are_loaded(oracle: Any, tmp_path: Path) -> None:
    oracle.save_pretrained(tmp_path)
    model = VideoLLaMA3.from_pretrained(tmp_path)
    _close(model, oracle)
    assert not model.training


def test_sharded_weights_saved_by_transformers_are_loaded(oracle: Any, tmp_path: Path) -> None:
    oracle.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    _close(VideoLLaMA3.from_pretrained(tmp_path), oracle)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_the_saved_weights(tmp_path: Path, tied: bool) -> None:
    from transformers import VideoLlama3ForConditionalGeneration

    tiny = preset("tiny")
    config = tiny.model_copy(update={"language": {**tiny.language, "tie_word_embeddings": tied}})
    oracle = whole_oracle(config)
    ours_of(oracle, config).save_pretrained(tmp_path)
    theirs, info = VideoLlama3ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(_logits(theirs.eval()), _logits(oracle), atol=0, rtol=0)
    assert (theirs.lm_head.weight is theirs.model.language_model.embed_tokens.weight) == tied
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied


def test_round_trip_changes_nothing_and_keeps_the_type(oracle: Any, tmp_path: Path) -> None:
    model = ours_of(oracle).to(torch.bfloat16)
    model.language.generation_config.eos_token_id = [5, 6]
    model.save_pretrained(tmp_path)
    again = VideoLLaMA3.from_pretrained(tmp_path)
    assert again.config.vision == model.config.vision
    assert again.language.generation_config.eos_token_id == [5, 6]
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert a.dtype == b.dtype == torch.bfloat16
        assert torch.equal(a, b), name
    assert next(VideoLLaMA3.from_pretrained(tmp_path, torch.float32).parameters()).dtype == torch.float32


def _original(oracle: Any, folder: Path, encoder: str = "model.vision_encoder.") -> None:
    """The repository's layout, out of issue #66's list of names and not out of our table."""
    names = {}
    for name, tensor in oracle.state_dict().items():
        if name.startswith("model.vision_model."):
            name = encoder + name.removeprefix("model.vision_model.")
        elif name.startswith("model.projector."):
            name = "model.mm_projector." + name.removeprefix("model.projector.")
        elif name.startswith("model.language_model."):
            name = "model." + name.removeprefix("model.language_model.")
        if name != "lm_head.weight":  # tied
            names[name] = tensor.clone()
    save_file(names, folder / "model.safetensors")
    tiny = preset("tiny")
    language = {**tiny.language, "model_type": "videollama3_qwen2", "rope_theta": 1e6}
    del language["rope_parameters"]
    vision = {"model_type": "videollama3_vision_encoder", "hidden_size": 64, "intermediate_size": 128,
              "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 14}  # fmt: skip
    extra = {"mm_projector_type": "mlp2x_gelu", "use_token_compression": True, "image_token_index": 261}
    settings = {**language, **extra, "vision_encoder_config": vision, "torch_dtype": "float32", "auto_map": {"x": "y"}}
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("encoder", ["model.vision_encoder.", "model.vision_encoder.vision_encoder."])
def test_original_layout_of_weights_is_loaded(oracle: Any, tmp_path: Path, encoder: str) -> None:
    _original(oracle, tmp_path, encoder)
    model = VideoLLaMA3.from_pretrained(tmp_path)
    assert model.config.image_token_id == 151655, "Qwen2.5's own placeholder"
    model.config = model.config.model_copy(update={"image_token_id": 259, "video_token_id": 260})
    _close(model, oracle)


def test_parts_are_loaded_from_siglip_and_qwen(tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipConfig, SiglipModel

    tiny = preset("tiny")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    siglip = SiglipModel(
        SiglipConfig(
            vision_config={**shape, "patch_size": 14, "image_size": 28},
            text_config={**shape, "vocab_size": 99, "max_position_embeddings": 8},
        )
    )
    siglip.save_pretrained(tmp_path / "siglip")
    qwen = Qwen2ForCausalLM(Qwen2Config(**{k: v for k, v in tiny.language.items() if k != "model_type"}))
    qwen.save_pretrained(tmp_path / "qwen")
    model = VideoLLaMA3.from_parts(tmp_path / "siglip", tmp_path / "qwen")
    assert torch.equal(model.vision.layers[1].mlp.fc2.bias, siglip.vision_model.encoder.layers[1].mlp.fc2.bias)
    patch = siglip.vision_model.embeddings.patch_embedding.weight
    assert torch.equal(model.vision.patch_embedding.weight, patch)
    with torch.no_grad():
        ids = torch.arange(9)
        torch.testing.assert_close(model(ids).logits, qwen(ids[None]).logits[0], atol=1e-6, rtol=0)
    assert model.language.lm_head.weight is model.language.model.embed_tokens.weight


PUBLISHED = {
    "2b": {"vision": 412_147_440, "language": 1_543_714_304, "projector": 4_131_840},
    "7b": {"vision": 412_147_440, "language": 7_615_616_512, "projector": 16_980_992},
}
"""In bf16 the encoder is VL3-SigLIP-NaViT's 824 MB, 2B is the 3.92 GB of its file; Qwen2.5's are its own counts."""


def _shapes(module: torch.nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {prefix + name: tuple(weight.shape) for name, weight in module.state_dict().items()}


@pytest.fixture(scope="module", params=["2b", "7b"])
def published(request: pytest.FixtureRequest) -> tuple[str, VideoLLaMA3]:
    """The published sizes, without memory."""
    return request.param, VideoLLaMA3(preset(request.param), "meta")


def test_published_sizes_have_their_published_parameter_counts(published: tuple[str, VideoLLaMA3]) -> None:
    name, ours = published
    assert all(parameter.is_meta for parameter in ours.parameters())
    counted = {part: sum(p.numel() for p in getattr(ours, part).parameters()) for part in PUBLISHED[name]}
    assert counted == PUBLISHED[name]
    assert counted["vision"] * 2 == pytest.approx(824e6, rel=1e-3)
    total = sum(p.numel() for p in ours.parameters())
    assert total == sum(counted.values())
    if name == "2b":
        assert total * 2 == pytest.approx(3.92e9, rel=1e-3)


def test_published_sizes_have_names_and_shapes_of_transformers(published: tuple[str, VideoLLaMA3]) -> None:
    from transformers import AutoConfig, VideoLlama3Config, VideoLlama3ForConditionalGeneration

    name, ours = published
    config = preset(name)
    vision = config.vision.model_dump()
    vision["rope_parameters"] = {"rope_type": "axial", "rope_theta": vision.pop("rope_theta")}
    text = AutoConfig.for_model("qwen2", **{k: v for k, v in config.language.items() if k != "model_type"})
    whole = VideoLlama3Config(
        text_config=text, vision_config=vision, tie_word_embeddings=config.language["tie_word_embeddings"]
    )
    with torch.device("meta"):
        theirs = VideoLlama3ForConditionalGeneration(whole)
    mine = {rename(key, TRANSFORMERS): shape for key, shape in _shapes(ours).items()}
    assert mine == _shapes(theirs)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    _comes_back(ours, TRANSFORMERS)


def test_published_sizes_have_names_and_shapes_of_the_original(published: tuple[str, VideoLLaMA3]) -> None:
    """Built of what the original is built of: SigLIP's tower without positions and head, Qwen2.5, a projector."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

    name, ours = published
    # google/siglip-so400m-patch14-384 and Qwen/Qwen2.5-1.5B, -7B as their config.json tell.
    siglip = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    width, mlp, heads, shared, vocabulary = {"2b": (1536, 8960, 12, 2, 151936), "7b": (3584, 18944, 28, 4, 152064)}[
        name
    ]
    qwen = Qwen2Config(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=28,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        vocab_size=vocabulary,
        tie_word_embeddings=name == "2b",
    )
    with torch.device("meta"):
        tower = SiglipVisionModel(SiglipVisionConfig(**siglip, patch_size=14, image_size=384))
        decoder = Qwen2ForCausalLM(qwen)
    expected = _shapes(decoder)
    for key, shape in _shapes(tower).items():
        inner = key.removeprefix("vision_model.")
        if not inner.startswith(("embeddings.position_embedding.", "head.")):
            expected[f"model.vision_encoder.{inner}"] = shape
    projector = {"0.weight": (width, 1152), "0.bias": (width,), "2.weight": (width, width), "2.bias": (width,)}
    expected |= {f"model.mm_projector.readout.{key}": shape for key, shape in projector.items()}
    assert len(expected) == 27 * 16 + 4 + 4 + 28 * 12 + 3
    assert {rename(key, ORIGINAL): shape for key, shape in _shapes(ours).items()} == expected
    listed = {
        key: tuple(map(int, shape.split("x"))) for key, shape in (part.split("=") for part in LISTED[name].split())
    }
    assert listed.items() <= expected.items(), "as issue #66 lists them"
    _comes_back(ours, ORIGINAL)


def _comes_back(model: VideoLLaMA3, table: Table) -> None:
    names = list(model.state_dict())
    assert [rename(rename(key, table), table, back=True) for key in names] == names


# One of each kind, as issue #66 of the original repository lists them.
_COMMON = """
model.vision_encoder.embeddings.patch_embedding.weight=1152x3x14x14 model.vision_encoder.post_layernorm.bias=1152
model.vision_encoder.encoder.layers.26.self_attn.out_proj.weight=1152x1152
model.vision_encoder.encoder.layers.0.mlp.fc1.weight=4304x1152
model.vision_encoder.encoder.layers.0.layer_norm2.bias=1152
"""
LISTED = {
    "2b": _COMMON + """model.mm_projector.readout.0.weight=1536x1152 model.mm_projector.readout.2.bias=1536
        model.layers.27.self_attn.k_proj.bias=256 model.embed_tokens.weight=151936x1536 model.norm.weight=1536""",
    "7b": _COMMON + """model.mm_projector.readout.2.weight=3584x3584 lm_head.weight=152064x3584
        model.layers.27.mlp.down_proj.weight=3584x18944 model.embed_tokens.weight=152064x3584""",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda w: w.pop("model.projector.readout.0.bias"), "1 weights are missing, projector.readout.0.bias"),
        (lambda w: w.update({"model.projector.readout.9.bias": torch.zeros(1)}), "where nothing belongs"),
        (lambda w: w.update({"model.projector.readout.0.bias": torch.zeros(3)}), r"\(3,\) where \(64,\) belongs"),
        (lambda w: w.update({"strange": torch.zeros(3)}), "unknown weight strange"),
    ],
)
def test_weights_that_do_not_fit_are_refused(oracle: Any, tmp_path: Path, change: Any, advice: str) -> None:
    ours_of(oracle).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=advice):
        VideoLLaMA3.from_pretrained(tmp_path)


def test_broken_folders_are_refused(oracle: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a folder with a checkpoint"):
        VideoLLaMA3.from_pretrained(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ValueError, match="'llava': give a VideoLLaMA3"):
        VideoLLaMA3.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        VideoLLaMA3.from_pretrained(tmp_path)
    ours_of(oracle).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="broken"):
        VideoLLaMA3.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match=r"no model.safetensors"):
        VideoLLaMA3.from_pretrained(tmp_path)


def test_saving_over_shards_removes_old_shards(oracle: Any, tmp_path: Path) -> None:
    oracle.save_pretrained(tmp_path, max_shard_size="100KB")
    ours_of(oracle).save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.glob("model*")] == ["model.safetensors"]
    _close(VideoLLaMA3.from_pretrained(tmp_path), oracle)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("vl3syn_processor.json", '{"fps": [1]}', "fps: Input should be a valid number; copy it again"),
        ("config.json", '{"model_type": "video_llama_3"}', "no 'text_config'; copy it again"),
    ],
)
def test_damaged_file_of_a_checkpoint_is_named(tmp_path: Path, file: str, text: str, reason: str) -> None:
    VideoLLaMA3(preset("tiny")).save_pretrained(tmp_path)
    Processor.tiny().save_pretrained(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError) as raised:
        (Processor if "processor" in file else VideoLLaMA3).from_pretrained(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / file}: cannot be read: {reason}")
