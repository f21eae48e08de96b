"""Weights in pytorch_model.bin: read as tensors; code in them is not run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import UserError
from model import VideoLLaMA3
from model.config import preset
from model.training.recipe import Start
from tests.model.oracles import ours_of, whole_oracle

Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with safetensors."""
    ours_of(whole_oracle()).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def weights(folder: Path) -> Weights:
    """Its weights, which are no longer in a file."""
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return stored


def _loads(folder: Path, weights: Weights) -> None:
    model = VideoLLaMA3.from_pretrained(folder)
    assert torch.equal(model.projector.readout[0].weight, weights["model.projector.readout.0.weight"])
    assert torch.equal(model.language.lm_head.weight, weights["model.language_model.embed_tokens.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_in_one_pickle_are_loaded(folder: Path, weights: Weights, zipped: bool) -> None:
    tied = {"lm_head.weight": weights["model.language_model.embed_tokens.weight"]}
    torch.save({**weights, **tied}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    _loads(folder, weights)


def _shards(folder: Path, weights: Weights) -> list[Path]:
    files = [folder / f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    places = {name: files[number % 2].name for number, name in enumerate(weights)}
    for file in files:
        torch.save({name: tensor for name, tensor in weights.items() if places[name] == file.name}, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return files


def test_weights_in_several_pickles_are_loaded(folder: Path, weights: Weights) -> None:
    _shards(folder, weights)
    _loads(folder, weights)


def test_missing_shard_of_pickles_is_named(folder: Path, weights: Weights) -> None:
    _shards(folder, weights)[1].unlink()
    with pytest.raises(UserError, match=r"no pytorch_model-00002-of-00002.bin: copy all of the checkpoint's weights"):
        VideoLLaMA3.from_pretrained(folder)


def test_safetensors_are_preferred_to_pickles(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    _loads(folder, weights)


def test_folder_without_weights_says_which_files_are_read(folder: Path, weights: Weights) -> None:
    with pytest.raises(UserError, match=r"no model.safetensors or pytorch_model.bin: copy all"):
        VideoLLaMA3.from_pretrained(folder)


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(folder: Path, weights: Weights, zipped: bool) -> None:
    content = {**weights, "evil": Evil(folder / "ran")}
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert "is more than weights, and code is never run" in _refusal(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": torch.zeros(1)}}, {1: torch.zeros(1)}])
def test_pickle_of_another_form_is_refused(folder: Path, weights: Weights, content: Any) -> None:
    torch.save(content, folder / "pytorch_model.bin")
    assert "pytorch_model.bin: no table of names and tensors" in _refusal(folder)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 10, 100, 1000, 100_000, -1])
@pytest.mark.parametrize("zipped", [True, False])
def test_broken_pickle_is_a_one_line_error(folder: Path, weights: Weights, zipped: bool, length: int) -> None:
    file = folder / "pytorch_model.bin"
    torch.save(weights, file, _use_new_zipfile_serialization=zipped)
    file.write_bytes(file.read_bytes()[:length])
    assert str(file) in _refusal(folder)


def test_random_bytes_in_a_pickle_are_a_one_line_error(folder: Path, weights: Weights) -> None:
    file = folder / "pytorch_model.bin"
    generator = torch.Generator().manual_seed(0)
    for start in (b"", b"PK\x03\x04", b"\x80\x02", pickle.dumps({"a": [1]}, 2)[:-1]):
        for _ in range(20):
            file.write_bytes(start + bytes(torch.randint(256, (64,), generator=generator).tolist()))
            _refusal(folder)


def _refusal(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        VideoLLaMA3.from_pretrained(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_fingerprint_of_a_start_depends_on_its_pickles(folder: Path, weights: Weights) -> None:
    start = Start(checkpoint=str(folder))
    torch.save(weights, folder / "pytorch_model.bin")
    before = start.fingerprint()
    torch.save({**weights, "model.projector.readout.0.bias": torch.ones(64)}, folder / "pytorch_model.bin")
    assert start.fingerprint() != before


def test_training_layout_of_the_original_is_loaded(folder: Path, weights: Weights) -> None:
    """As its converter writes it: pytorch_model.bin, a doubled prefix, and the encoder's shapes added by hand."""
    renamed = {}
    for name, tensor in weights.items():
        for theirs, original in {
            "model.vision_model.": "model.vision_encoder.vision_encoder.",
            "model.projector.": "model.mm_projector.",
            "model.language_model.": "model.",
        }.items():
            name = name.replace(theirs, original)
        renamed[name] = tensor
    torch.save(renamed, folder / "pytorch_model.bin")
    tiny = preset("tiny")
    config = {**tiny.language, "model_type": "videollama3_qwen2", "vision_encoder": "DAMO-NLP-SG/SigLIP-NaViT"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "no vision_encoder_config" in _refusal(folder)
    vision = tiny.vision.model_dump()
    (folder / "config.json").write_text(json.dumps({**config, "vision_encoder_config": vision}))
    _loads(folder, weights)
