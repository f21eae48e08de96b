"""Our count of operations against torch's own, on rows and freezings as the trainer has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model import Processor
from model.config import ModelConfig, VisionConfig, preset
from model.packed_row import PackedRow
from model.prune import Pruning
from model.training.data.prepare import for_stage, prepare
from model.training.data.samples import Sample
from model.training.flops import PEAKS, RowSizes, flops, peak_flops, row_flops
from model.training.lora import add_adapters
from model.training.param_groups import parameter_groups
from model.training.stage import Lora, Stage
from model.videollama3 import VideoLLaMA3
from tests.model import clips
from tests.model.training import training_data

NEAR = 1e-3  # wanted is 0.01
EVERYTHING = {"": 1.0}
FREEZINGS: dict[str, Mapping[str, float | str]] = {
    "nothing": EVERYTHING,
    "language (stage 1)": {"vision|projector": 1.0, "language": "frozen"},
    "all but the projector": {"projector": 1.0, "": "frozen"},
    "vision": {"vision": "frozen", "": 1.0},
    "all but the language's layers": {"language.model.layers": 1.0, "": "frozen"},
    "all but the vision's last block": {"vision.layers.1": 1.0, "": "frozen"},
    "the first blocks but for their norms": {r"(vision|language\.model)\.layers\.0.*(mlp|proj)": "frozen", "": 1.0},
    "all but biases of the first block": {r"vision\.layers\.0.*bias": 1.0, "": "frozen"},
    "all but the language's embeddings, which are its head": {"language.model.embed_tokens": 1.0, "": "frozen"},
}


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """On one core: of what is so small, two threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 4 seconds, which brighten by 4 levels a second but for a corner that stays."""
    return clips.write(tmp_path_factory.mktemp("clips") / "clip.mp4", [k / 2 for k in range(8)])


def tensors(*conversations: list[Any], **settings: Any) -> PackedRow:
    """A packed row; each conversation is asked about these parts."""
    stage = Stage(name="s", learning_rates={"": 1.0}, mixture={"a": 1}, steps=1, **settings)  # type: ignore[arg-type]
    processor = for_stage(Processor.tiny(), stage)
    rows: list[PackedRow] = []
    for number, parts in enumerate(conversations):
        answer = "It is " + "so " * number + "grey."
        turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
        for piece in prepare(processor, Sample(f"sample {number}", turns), number, 10**6, 10**6):
            rows.append(piece.inputs)
    return PackedRow.pack(rows).with_media()


def image(number: int, side: int = 56) -> dict[str, Any]:
    return {"type": "image", "image": training_data.picture(number, side)}


def counted(model: VideoLLaMA3, row: PackedRow, backward: bool = True) -> int:
    # Of the fused kernel of a CPU the counter knows nothing.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = model(**row).loss
        if backward:
            loss.backward()
    return counter.get_total_flops()


def freeze(model: VideoLLaMA3, rates: Mapping[str, float | str]) -> VideoLLaMA3:
    parameter_groups(model.named_parameters(), rates, 0.0)
    return model


@pytest.fixture(scope="module")
def tiny() -> VideoLLaMA3:
    return VideoLLaMA3(preset("tiny"))


@pytest.fixture(scope="module")
def rows(clip: Path) -> dict[str, PackedRow]:
    film = {"type": "video", "video": str(clip)}
    pruned = tensors([film, "What happens?"], pruning=Pruning())
    assert 0 < pruned["keep_mask"].float().mean() < 1
    return {
        "text": tensors(["Count to ten, slowly, and then back again, please. " * 3]),
        "an image": tensors([image(0), "What is this?"]),
        "an image, merged": tensors([image(0), "What is this?"], image_merge=2),
        "a clip": tensors([film, "What happens?"]),
        "a clip, pruned": pruned,
        "a long text": tensors(["Very long. " * 60]),
        "several": tensors([image(1), image(2, 84), "Which?"], ["Hi."], [film, "And here?"], [image(3), "Now?"]),
    }


@pytest.mark.parametrize(
    "name", ["text", "an image", "an image, merged", "a clip", "a clip, pruned", "a long text", "several"]
)
def test_flops_of_a_row_equal_those_counted_by_torch(name: str, rows: dict[str, PackedRow], tiny: VideoLLaMA3) -> None:
    freeze(tiny, EVERYTHING)
    assert row_flops(tiny, rows[name]) == pytest.approx(counted(tiny, rows[name]), rel=NEAR)


def test_flops_without_trained_parts_are_of_the_forward_pass(rows: dict[str, PackedRow], tiny: VideoLLaMA3) -> None:
    tiny.requires_grad_(False)
    for name, row in rows.items():
        assert row_flops(tiny, row) == pytest.approx(counted(tiny, row, backward=False), rel=NEAR), name


def test_flops_of_summed_sizes_need_no_weights(rows: dict[str, PackedRow], tiny: VideoLLaMA3) -> None:
    rates = FREEZINGS["the first blocks but for their norms"]
    sizes = [vars(RowSizes.of(row)) for row in rows.values()]
    summed = RowSizes(**{name: sum(each[name] for each in sizes) for name in sizes[0]})
    bare = freeze(VideoLLaMA3(preset("tiny"), "meta"), rates)
    assert flops(bare, summed) == sum(row_flops(freeze(tiny, rates), row) for row in rows.values())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.thorough) if n.startswith("all but the ") else n for n in FREEZINGS]
)
def test_flops_with_frozen_parts_equal_those_counted_by_torch(
    name: str, rows: dict[str, PackedRow], tiny: VideoLLaMA3
) -> None:
    freeze(tiny, FREEZINGS[name])
    assert row_flops(tiny, rows["several"]) == pytest.approx(counted(tiny, rows["several"]), rel=NEAR)
    assert row_flops(tiny, rows["text"]) == pytest.approx(counted(tiny, rows["text"]), rel=NEAR)


def test_flops_of_adapters_are_counted(rows: dict[str, PackedRow]) -> None:
    model = VideoLLaMA3(preset("tiny"))
    add_adapters(model, Lora(r=16))
    freeze(model, {"language.*lora_": 1.0, "": "frozen"})
    assert row_flops(model, rows["several"]) == pytest.approx(counted(model, rows["several"]), rel=NEAR)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4, "tie_word_embeddings": False},
        {"model_type": "qwen3", "head_dim": 32},  # heads wider than hidden_size / heads, with norms of their own
    ],
    ids=["one key head", "own head", "qwen3"],
)
def test_flops_of_other_decoders_are_counted(changes: dict[str, Any], rows: dict[str, PackedRow]) -> None:
    tiny = preset("tiny")
    vision = VisionConfig(hidden_size=48, intermediate_size=200, num_hidden_layers=1, num_attention_heads=3)
    model = VideoLLaMA3(ModelConfig(**(dict(tiny) | {"vision": vision, "language": tiny.language | changes})))
    for rates in (EVERYTHING, {"language.model.layers": 1.0, "": "frozen"}):
        freeze(model, rates)
        assert row_flops(model, rows["several"]) == pytest.approx(counted(model, rows["several"]), rel=NEAR)


def test_flops_leave_out_recomputation_of_checkpointing(rows: dict[str, PackedRow]) -> None:
    model = freeze(VideoLLaMA3(preset("tiny")), EVERYTHING)
    once = counted(model, rows["an image"])
    model.enable_checkpointing()
    assert counted(model, rows["an image"]) > 1.2 * once
    assert row_flops(model, rows["an image"]) == pytest.approx(once, rel=NEAR)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", PEAKS["L4"]),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Quadro FX 1700", None),
    ],
)
def test_peak_flops_follow_the_name_of_the_gpu(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak
    assert peak_flops(torch.device("cpu")) is None
