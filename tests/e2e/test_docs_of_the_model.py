"""The figures of docs/model.md are what the code gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks import kept_share
from model import Processor, VideoLLaMA3, images, vision
from model.attention import segment_attention
from model.config import preset

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/model.md").read_text()


def _table(*columns: str) -> list[list[str]]:
    """Rows of the table with this head."""
    head = "| " + " | ".join(columns) + " |\n"
    assert PAGE.count(head) == 1
    lines = PAGE.split(head)[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _shape(documented: str, text: int) -> tuple[int, ...]:
    """`(2487 + T, 1536)` for T tokens of text."""
    terms = [part.replace("T", str(text)).split("+") for part in documented.strip("()").split(",") if part.strip()]
    return tuple(sum(int(term) for term in part) for part in terms)


def _chat() -> list[dict[str, Any]]:
    """A photograph of 640 x 480, and a clip of 5 frames of 640 x 360 whose left half stands still."""
    dice = np.random.default_rng(0)
    photo = dice.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    frames = dice.integers(0, 256, (1, 360, 640, 3), dtype=np.uint8).repeat(5, 0)
    frames[:, :, 320:] = dice.integers(0, 256, (5, 360, 320, 3), dtype=np.uint8)
    media = [{"type": "image", "image": Image.fromarray(photo)}, {"type": "video", "video": frames}]
    return [{"role": "user", "content": [*media, "What happens?"]}]


@pytest.fixture(scope="module")
def big() -> VideoLLaMA3:
    return VideoLLaMA3(preset("2b"), "meta")


@torch.no_grad()
def test_documented_shapes_are_those_of_2b(big: VideoLLaMA3, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[int, ...]] = {}

    def cut(frames: Tensor, *others: int) -> Tensor:
        seen["the clip, resized" if len(frames) > 1 else "the image, resized"] = tuple(frames.shape)
        return patchify(frames, *others)

    def attend(q: Tensor, k: Tensor, v: Tensor, segments: Any) -> Tensor:
        assert q.shape == k.shape == v.shape
        assert segments.lengths == (1564, *(1196,) * 5)
        seen["queries, keys, values of the encoder"] = tuple(q.shape)
        return segment_attention(q, k, v, segments)

    def block(_: Any, inputs: Any, out: Tensor) -> None:
        seen["embedded patches"] = tuple(inputs[0].shape)
        seen["cosines, and sines"] = tuple(inputs[1][0].shape)
        assert out.shape == inputs[0].shape

    patchify = images.patchify
    monkeypatch.setattr(images, "patchify", cut)
    monkeypatch.setattr(vision, "segment_attention", attend)
    monkeypatch.setattr(vision, "CPU_PORTION", 10**6)
    monkeypatch.setattr(vision, "PORTION", 10**6)
    row = Processor.tiny()(_chat())
    seen |= {name: tuple(row[name].shape) for name in ("grid_thw", "pixel_values", "keep_mask", "input_ids")}
    tiny = preset("tiny")
    places = int(((row["input_ids"] == tiny.image_token_id) | (row["input_ids"] == tiny.video_token_id)).sum())

    first = big.vision.layers[0]
    hooks = [first.register_forward_hook(block)]
    hooks.append(
        first.mlp.fc1.register_forward_hook(
            lambda *call: seen.update({"inside the encoder's MLP": tuple(call[2].shape)})
        )
    )
    merged = big.vision(row["pixel_values"].to("meta"), row["grid_thw"], row["merge_sizes"])
    for hook in hooks:
        hook.remove()
    kept = merged[: int(row["keep_mask"].sum())]
    projected = big.projector(kept)
    seen |= {"merged tokens": merged.shape, "kept tokens": kept.shape, "projected tokens": projected.shape}
    assert len(projected) == places

    text = len(row["input_ids"]) - places
    reads = torch.cat(
        [projected, big.language.get_input_embeddings()(torch.zeros(text, dtype=torch.long, device="meta"))]
    )
    layer = big.language.model.layers[0]
    seen["what the language model reads"] = reads.shape
    seen["its queries"] = layer.self_attn.q_proj(reads).shape
    seen["its keys, values"] = layer.self_attn.k_proj(reads).shape
    seen["inside its MLP"] = layer.mlp.gate_proj(reads).shape
    seen["logits"] = big.language.lm_head(reads).shape

    documented = {
        name.strip("`"): _shape(shape, text) for name, _, _, shape in _table("what", "where", "shape", "here")
    }
    assert documented == {name: tuple(shape) for name, shape in seen.items()}


def test_documented_numbers_of_parameters_are_right(big: VideoLLaMA3) -> None:
    models = big, VideoLLaMA3(preset("7b"), "meta")
    for part, *documented in _table("part", "parameters of 2b", "of 7b"):
        assert documented == [f"{sum(p.numel() for p in getattr(model, part).parameters()):,}" for model in models]


def test_every_module_of_the_model_is_documented() -> None:
    section = PAGE.split("## Where to begin reading")[1].split("\n## ")[0]
    modules = {path.name for path in (ROOT / "model").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", section)) == modules


def test_documented_kept_shares_of_a_clip_are_right() -> None:
    columns = ("clip", "frames", "tokens", "against", *(f"{level:g}" for level in kept_share.GREY))
    rows = [row for row in _table(*columns) if row[0] == "carphone"]
    assert len(rows) == 4
    for row in rows:
        measured = kept_share.measure("carphone", float(row[1].split()[2].removesuffix("/s")))
        assert row == kept_share.row(measured, row[3])
