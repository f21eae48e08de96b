"""The model of a step's checkpoint, while its stage is under way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from model import Processor, VideoLLaMA3
from model.checkpoint import load_checkpoint
from model.evaluate import evaluate
from model.training.data.shards import ShardConfig
from model.training.metrics_log import MetricsLogger
from model.training.recipe import parse_recipe
from model.training.run import train
from model.training.trainer import Step
from tests.model.training import training_data

FROZEN = {"vision": "frozen", "projector": 1e-3, "language": 1e-3}
LORA = {"learning_rates": {".*lora_": 1e-2, "projector": 1e-3, "": "frozen"}, "lora": {"r": 4, "alpha": 8}}

UP = {".*lora_B": 1e-2, "projector": 1e-3, "": "frozen"}


class StoppedError(Exception):
    """Where a test has had enough."""


def recipe(folder: Path, steps: int, **changes: Any) -> dict[str, Any]:
    """Two stages. The rates of the second do not depend on its length: its first steps are those of a shorter one."""
    written = training_data.recipe(folder, steps=2, rows=2)
    second = {"steps": steps, "schedule": "constant", "warmup": 0, "learning_rates": FROZEN, "fps": 0.5}
    written["stages"][1] |= second | changes
    return written | {"ask": 0}


def stopped_after_step_4(written: dict[str, Any], out: Path) -> Path:
    """Train, and stop behind the checkpoint of step 4 of the second stage. Return the checkpoint."""
    plain = MetricsLogger.step

    def step(self: MetricsLogger, done: Step) -> None:
        plain(self, done)
        if done.step == 5:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MetricsLogger, "step", step)
        with pytest.raises(StoppedError):
            train(parse_recipe(written, "test"), out)
    return out / "2-second/step-00000004"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`out`, whose second stage is under way, and `short`, whose second stage ended after 4 steps."""
    folder = tmp_path_factory.mktemp("step")
    stopped_after_step_4(recipe(folder, 6), folder / "out")
    train(parse_recipe(recipe(folder, 4), "test"), folder / "short")
    return folder


def test_model_of_a_step_equals_the_export_of_a_shorter_stage(folder: Path) -> None:
    model, processor = load_checkpoint(folder / "out/2-second/step-00000004")
    exported = VideoLLaMA3.from_pretrained(folder / "short/2-second/model")
    ours, theirs = model.state_dict(), exported.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not model.training
    assert processor.config == Processor.from_pretrained(folder / "short/2-second/model").config
    assert processor.config.fps == 0.5
    half, _ = load_checkpoint(folder / "out/2-second/step-00000004", torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_frequencies_of_a_step_in_bfloat16_stay_float32(folder: Path) -> None:
    """Rounded ones would turn far tokens to other positions."""
    step, _ = load_checkpoint(folder / "out/2-second/step-00000004", torch.bfloat16)
    export = VideoLLaMA3.from_pretrained(folder / "short/2-second/model", torch.bfloat16)
    for (name, ours), theirs in zip(step.named_buffers(), export.buffers(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs), name
    ids = torch.arange(3, 200).repeat(3)
    with torch.no_grad():
        assert torch.equal(step(ids).logits, export(ids).logits)


def test_step_of_the_first_stage_begins_with_the_recipes_model(folder: Path, tmp_path: Path) -> None:
    """New weights, drawn by the seed; the frozen ones are not in the checkpoint."""
    written = recipe(folder, 6)
    stage = [stage for stage in written["stages"] if stage["name"] == "second"]
    stopped_after_step_4(written | {"stages": stage}, tmp_path / "out")
    short = recipe(folder, 4)["stages"][1:]
    exported = train(parse_recipe(written | {"stages": short}, "test"), tmp_path / "short")
    model, _ = load_checkpoint(tmp_path / "out/1-second/step-00000004")
    theirs = VideoLLaMA3.from_pretrained(exported).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("halves", ["both", "up"])
def test_adapters_of_a_step_are_used(folder: Path, tmp_path: Path, halves: str) -> None:
    """A frozen half is in no checkpoint: it is drawn again as it was."""
    lora = LORA if halves == "both" else LORA | {"learning_rates": UP}
    path = stopped_after_step_4(recipe(folder, 6, **lora), tmp_path / "out")
    train(parse_recipe(recipe(folder, 4, **lora), "test"), tmp_path / "short")
    model, processor = load_checkpoint(path)
    merged = VideoLLaMA3.from_pretrained(tmp_path / "short/2-second/model")
    row = processor([{"role": "user", "content": [{"type": "image", "image": training_data.picture(1)}, "Say it."]}])
    start = VideoLLaMA3.from_pretrained(tmp_path / "short/1-first/model")
    with torch.no_grad():
        torch.testing.assert_close(model(**row).logits, merged(**row).logits, atol=1e-4, rtol=1e-4)
        assert (model(**row).logits - start(**row).logits).abs().max() > 1e-2


def test_step_that_is_damaged_or_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(folder / "out", tmp_path / "out"))
    path = out / "2-second/step-00000004"
    shutil.copytree(path, tmp_path / path.name)
    with pytest.raises(ValueError, match=r"^.*/step-00000004: its training is not around it: .*recipe.yaml: no such"):
        load_checkpoint(tmp_path / path.name)
    other = VideoLLaMA3.from_pretrained(out / "1-first/model")
    with torch.no_grad():
        other.vision.post_layernorm.bias += 1
    other.save_pretrained(out / "1-first/model")
    with pytest.raises(ValueError, match=r"step-00000004: the checkpoint that it begins with has changed"):
        load_checkpoint(path)
    (path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged"):
        load_checkpoint(path)


def test_step_is_evaluated_on_what_its_training_holds_out(folder: Path) -> None:
    captions = ShardConfig(shards=str(folder / "shards"), caption="short")
    held_out, trained, short = (
        evaluate(checkpoint, captions, held_out=part, max_new_tokens=0).loss
        for checkpoint, part in (
            (folder / "out/2-second/step-00000004", True),
            (folder / "out/2-second/step-00000004", False),
            (folder / "short/2-second/model", True),
        )
    )
    assert (held_out.samples, trained.samples) == (4, 36)
    assert held_out.mean == short.mean
