"""What a checkpoint's generation_config.json changes: the special tokens, nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import preset
from model.training.recipe import Start
from model.training.start import open_start
from model.videollama3 import VideoLLaMA3
from tests.model.oracles import Sample, ours_of, packed, whole_oracle

ROW = packed(Sample.of((1, 4, 6), seed=1))
EVERY_ID = list(range(0, 256, 2))

SETTINGS: dict[str, dict[str, Any]] = {
    "qwen2.5-instruct": {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05},
    "qwen3": {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20},
    "llama": {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    "hot": {"do_sample": True, "temperature": 50.0, "min_p": 0.001},
    "cut-offs": {
        "do_sample": True, "min_p": 0.9, "typical_p": 0.1, "top_h": 0.4, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1,
    },
    "penalties": {"repetition_penalty": 9.0, "encoder_repetition_penalty": 9.0, "no_repeat_ngram_size": 1},
    "bias": {"sequence_bias": [[[n], 99.0] for n in EVERY_ID], "renormalize_logits": True},
    "suppressed": {"suppress_tokens": EVERY_ID, "begin_suppress_tokens": EVERY_ID},
    "bad words": {"bad_words_ids": [[n] for n in EVERY_ID]},
    "forced": {"forced_bos_token_id": 7, "forced_eos_token_id": 8},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": -5.0, "early_stopping": True},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "dola": {"dola_layers": "low"},
    "words": {"num_beams": 2, "force_words_ids": [[7]]},
    "guided": {"guidance_scale": 3.0},
    "watermark": {"watermarking_config": {"greenlist_ratio": 0.5, "bias": 50.0}},
    "look-up": {"prompt_lookup_num_tokens": 2},
    "early exit": {"assistant_early_exit": 1},
    "short": {"max_length": 2, "max_new_tokens": 1},
    "long": {"min_length": 500, "min_new_tokens": 500},
    "time": {"max_time": 1e-9},
    "decay": {"exponential_decay_length_penalty": [1, 99.0]},
    "stop strings": {"stop_strings": ["a"]},
    "outputs": {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
    "cache": {"use_cache": False, "cache_implementation": "static", "prefill_chunk_size": 2},
    "another package's": {"chat_format": "chatml", "logits_processor": "x", "tokenizer": "y"},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model = ours_of(whole_oracle())
    model.language.generation_config.eos_token_id = [258, 256]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> tuple[list[int], list[int]]:
    """The greedy answer, and a sampled one."""
    return _answer(VideoLLaMA3.from_pretrained(folder)), _answer(VideoLLaMA3.from_pretrained(folder), 0.8)


def _answer(model: VideoLLaMA3, temperature: float = 0.0) -> list[int]:
    torch.manual_seed(5)
    (answer,) = model.generate(**ROW, max_new_tokens=8, temperature=temperature)
    ids: list[int] = answer.tolist()
    return ids


def _with(folder: Path, path: Path, settings: dict[str, Any]) -> VideoLLaMA3:
    """The folder's model, opened from a copy whose generation_config.json has more settings."""
    shutil.copytree(folder, path)
    file = path / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return VideoLLaMA3.from_pretrained(path)


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_answer_is_the_same_in_3_calls(
    folder: Path, tmp_path: Path, answers: tuple[list[int], list[int]], name: str
) -> None:
    assert len(answers[0]) == 8
    model = _with(folder, tmp_path / "copy", SETTINGS[name])
    torch.manual_seed(0)
    found = [model.generate(**ROW, max_new_tokens=8)[0].tolist() for _ in range(3)]
    assert found == [answers[0]] * 3


@pytest.mark.parametrize("name", SETTINGS)
def test_sampling_depends_on_the_arguments_only(
    folder: Path, tmp_path: Path, answers: tuple[list[int], list[int]], name: str
) -> None:
    assert answers[0] != answers[1]
    assert _answer(_with(folder, tmp_path / "copy", SETTINGS[name]), 0.8) == answers[1]


def test_special_tokens_of_the_file_are_kept(folder: Path, tmp_path: Path) -> None:
    tokens = {"bos_token_id": 3, "eos_token_id": [5, 6], "pad_token_id": 4}
    settings = _with(folder, tmp_path / "copy", {**SETTINGS["llama"], **tokens}).language.generation_config
    stored = settings.to_diff_dict()
    assert {key: value for key, value in stored.items() if key != "transformers_version"} == tokens


@pytest.fixture
def parts(tmp_path: Path) -> Start:
    """An encoder, and a language model with two end tokens that samples: neither is in its config.json."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

    from model.tokenizer import byte_tokenizer

    tiny = preset("tiny")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    SiglipVisionModel(SiglipVisionConfig(**shape, patch_size=14, image_size=28)).save_pretrained(tmp_path / "siglip")
    language = {key: value for key, value in tiny.language.items() if key != "model_type"}
    Qwen2ForCausalLM(Qwen2Config(**{**language, "eos_token_id": 256})).save_pretrained(tmp_path / "qwen")
    byte_tokenizer().save_pretrained(tmp_path / "qwen")
    _tokens(tmp_path / "qwen", [258, 256])
    return Start(vision=str(tmp_path / "siglip"), language=str(tmp_path / "qwen"))


def _tokens(folder: Path, ends: int | list[int]) -> None:
    settings = {"bos_token_id": 256, "eos_token_id": ends, "pad_token_id": 257, **SETTINGS["qwen2.5-instruct"]}
    (folder / "generation_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("end", [258, 256])
def test_model_of_parts_stops_at_every_end_token(parts: Start, end: int) -> None:
    assert parts.vision
    assert parts.language
    model = VideoLLaMA3.from_parts(parts.vision, parts.language)
    _says_only(model, end)
    assert model.language.generation_config.pad_token_id == 257
    assert [model.generate(torch.arange(9), max_new_tokens=5)[0].tolist() for _ in range(20)] == [[end]] * 20


@pytest.mark.parametrize(("ends", "expected"), [([258, 256], [258, 256]), (256, [256, 258]), ([256], [256, 258])])
def test_training_of_parts_stops_at_the_template_s_end(parts: Start, ends: Any, expected: list[int]) -> None:
    """A base model ends texts with another token than turns: 151643 instead of 151645 in Qwen2.5."""
    assert parts.language
    _tokens(Path(parts.language), ends)
    model, _ = open_start(parts, 0)
    assert model.language.generation_config.eos_token_id == expected
    _says_only(model, 258)
    assert model.generate(torch.arange(9), max_new_tokens=5)[0].tolist() == [258]


def _says_only(model: VideoLLaMA3, token: int) -> None:
    """Make `token` the most probable one after anything: the last layer's norm has no say any more."""
    hook = torch.zeros(model.language.config.vocab_size)
    hook[token] = 1.0
    model.language.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits * 0 + hook)
