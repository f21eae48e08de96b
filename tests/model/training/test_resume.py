"""What a training goes on from: sound checkpoints, the same data; and what it says where there is none."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from model.training.checkpoints import DamagedError, verify
from model.training.metrics_log import MetricsLogger, read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from model.training.trainer import Step
from tests.model.training import training_data

FILES = ("weights.safetensors", "moments.safetensors", "state.json")


class StoppedError(Exception):
    """Where a test has had enough."""


def stopped_after(written: dict[str, Any], out: Path, steps: int) -> None:
    """Train so many steps in this process, and no more."""

    def step(self: MetricsLogger, done: Step) -> None:
        if done.step == steps:
            raise StoppedError
        plain(self, done)

    plain = MetricsLogger.step
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MetricsLogger, "step", step)
        with pytest.raises(StoppedError):
            go(written, out)


def go(written: dict[str, Any], out: Path) -> None:
    train(parse_recipe(written, "test"), out)


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """One stage, over both sources."""
    written = training_data.recipe(folder, **{"rows": 2, **changes})
    return {**written, "stages": written["stages"][1:], "ask": 0}


def losses(out: Path) -> list[tuple[int, float]]:
    return [(r["step"], r["loss"]) for r in read_metrics(out) if r["kind"] == "step"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a training that nothing has disturbed, and one that was stopped after step 5, checkpoints after 2 and 4."""
    folder = tmp_path_factory.mktemp("resume")
    go(recipe(folder), folder / "whole")
    stopped_after(recipe(folder), folder / "stopped", 5)
    assert sorted(path.name for path in (folder / "stopped/1-second").glob("step-*")) == [
        "step-00000002",
        "step-00000004",
    ]
    return folder


@pytest.fixture
def out(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "stopped", tmp_path / "out"))


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def _goes_on_after_step_2(folder: Path, out: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    with caplog.at_level(logging.WARNING, "vl3syn.train"):
        go(recipe(folder), out)
    (line,) = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert f"step-00000004: {name} is damaged (" in line
    assert line.endswith("; goes on from step-00000002 instead, after step 2")
    assert "\n" not in line
    assert losses(out) == losses(folder / "whole")
    ours, whole = (load_file(run / "1-second/model/model.safetensors") for run in (out, folder / "whole"))
    assert all((ours[key] == whole[key]).all() for key in whole)
    assert not list(out.rglob("*damaged*")), "what was set aside goes when the stage is done"


@pytest.mark.parametrize("name", ["weights.safetensors", pytest.param("state.json", marks=pytest.mark.thorough)])
def test_flipped_bit_is_detected_and_the_last_sound_one_taken(
    folder: Path, out: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    file = out / "1-second/step-00000004" / name
    flip(
        file, 8 * file.stat().st_size // 2 * 1 + 3
    )  # in the middle: the lowest bits of some number, which stays finite
    _goes_on_after_step_2(folder, out, caplog, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["cut", "empty", "gone"])
def test_truncated_or_missing_file_is_detected(out: Path, name: str, harm: str) -> None:
    file = out / "1-second/step-00000004" / name
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 if harm == "cut" else 0])
    with pytest.raises(DamagedError, match=f"{name} is damaged"):
        verify(file.parent)


def test_flipped_bit_of_any_file_is_detected(folder: Path, out: Path) -> None:
    """Signs, exponents, last digits, names, the sums themselves: whatever is flipped, the checkpoint is not taken."""
    dice, path = random.Random(5), out / "1-second/step-00000004"
    untouched = verify(path)
    for name in FILES:
        whole = (path / name).read_bytes()
        for _ in range(60):
            flip(path / name, dice.randrange(8 * len(whole)))
            try:
                assert verify(path) == untouched, "only what means the same may pass: a blank, \\u in the other case"
                assert json.loads((path / name).read_bytes()) == json.loads(whole)
            except DamagedError as error:
                assert f"{name} is damaged" in str(error)  # noqa: PT017
            (path / name).write_bytes(whole)


def test_training_without_a_sound_checkpoint_stops_with_a_remedy(folder: Path, out: Path) -> None:
    for step in (2, 4):
        flip(out / f"1-second/step-0000000{step}/moments.safetensors", 90_000)
    before = sorted(out.rglob("*"))
    with pytest.raises(
        ValueError, match=r"step-00000004: moments.*step-00000002: moments.*no other.*: delete "
    ) as error:
        go(recipe(folder), out)
    assert "\n" not in str(error.value)
    assert sorted(out.rglob("*")) == before
    shutil.rmtree(out / "1-second")
    go(recipe(folder), out)
    assert losses(out) == losses(folder / "whole")


@pytest.mark.thorough
def test_losses_and_weights_are_equal_with_processes(folder: Path, out: Path, tmp_path: Path) -> None:
    """From the beginning, and from a checkpoint of a training without processes."""
    go({**recipe(folder), "workers": 2}, tmp_path / "new")
    go({**recipe(folder), "workers": 1}, out)
    for run in (tmp_path / "new", out):
        assert losses(run) == losses(folder / "whole")
        ours, whole = (load_file(path / "1-second/model/model.safetensors") for path in (run, folder / "whole"))
        assert all((ours[key] == whole[key]).all() for key in whole)


def test_damaged_checkpoint_does_not_replace_a_sound_one(folder: Path, out: Path) -> None:
    """It has a higher number than what is saved next; it may neither count among the last two nor be taken later."""
    stage = out / "1-second"
    os.rename(stage / "step-00000004", stage / "step-00000009")
    flip(stage / "step-00000009/weights.safetensors", 90_000)
    stopped_after(recipe(folder), out, 5)
    assert sorted(path.name for path in stage.glob("step-*")) == ["step-00000002", "step-00000004"]
    go(recipe(folder), out)
    assert losses(out) == losses(folder / "whole")


def _as_before(path: Path) -> None:
    """Make it a checkpoint of an earlier version."""
    state = json.loads((path / "state.json").read_text())
    for key in ("data", "files", "sha256"):
        del state[key]
    (path / "state.json").write_text(json.dumps(state))


def test_checkpoint_of_an_earlier_version_is_read(folder: Path, out: Path) -> None:
    for path in (out / "1-second").glob("step-*"):
        _as_before(path)
    shutil.rmtree(out / "1-second/step-00000002")
    go(recipe(folder), out)
    assert losses(out) == losses(folder / "whole")


def test_truncated_file_of_an_earlier_checkpoint_is_detected(
    folder: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (out / "1-second").glob("step-*"):
        _as_before(path)
    file = out / "1-second/step-00000004/moments.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    _goes_on_after_step_2(folder, out, caplog, "moments.safetensors")


def test_damaged_export_of_a_stage_stops_the_next_stage(tmp_path: Path) -> None:
    written = training_data.recipe(tmp_path, steps=2)
    go({**written, "stages": written["stages"][:1]}, tmp_path / "out")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        file = tmp_path / "out/1-first/model" / name
        flip(file, 301)
        with pytest.raises(ValueError, match=rf"{name}: is not as its stage has written it: copy it back, or del"):
            go(written, tmp_path / "out")
        flip(file, 301)


# Data


def _other_annotation(folder: Path) -> None:
    file = folder / "qa/qa.jsonl"
    file.write_text(file.read_text().replace("Count to 11", "Count to 12", 1))


def _other_caption(folder: Path) -> None:
    """Of the same length, in a row that is neither first nor last, nor an extreme."""
    file = folder / "shards/data/shard-00001.parquet"
    table = pq.read_table(file)
    captions = table["short_conversations"].to_pylist()
    captions[5], captions[9] = captions[9], captions[5]
    column = table.schema.get_field_index("short_conversations")
    changed = table.set_column(column, table.schema.field(column), [captions])
    pq.write_table(changed, file, row_group_size=4)


def _two_shards_swapped(folder: Path) -> None:
    one, other = (folder / f"shards/data/shard-0000{number}.parquet" for number in (0, 1))
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)


@pytest.mark.parametrize(
    ("change", "name"),
    [(_other_annotation, "qa"), (_other_caption, "captions"), (_two_shards_swapped, "captions")],
)
def test_other_data_of_the_same_length_are_refused(folder: Path, out: Path, change: Any, name: str) -> None:
    """In copies of the data at the same place."""
    aside = folder.with_name("resume-aside")
    shutil.copytree(folder, aside)
    try:
        change(folder)
        with pytest.raises(
            ValueError, match=rf"step-00000004: source {name} has changed since this stage began: put back what there"
        ):
            go(recipe(folder), out)
    finally:
        shutil.rmtree(folder)
        aside.rename(folder)


def test_copied_data_are_the_same_data(folder: Path, out: Path) -> None:
    for file in [*folder.glob("shards/data/*"), folder / "qa/qa.jsonl"]:
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    go(recipe(folder), out)
    assert losses(out) == losses(folder / "whole")


def test_another_starting_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    """What is frozen is not in checkpoints: it comes from there."""
    start = Path(shutil.copytree(folder / "whole/1-second/model", tmp_path / "start"))
    rates = {"vision": "frozen", "projector": 1e-3, "language": "frozen"}
    written = {**recipe(folder, learning_rates=rates), "model": {"checkpoint": str(start)}}
    stopped_after(written, tmp_path / "out", 3)
    weights = load_file(start / "model.safetensors")
    weights[min(name for name in weights if "vision" in name)] += 1
    save_file(weights, start / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="the checkpoint that it begins with has changed since this stage began"):
        go(written, tmp_path / "out")


# Files


def test_all_files_of_a_training_follow_the_umask(folder: Path, tmp_path: Path) -> None:
    mask = 0o027
    before = os.umask(mask)
    try:
        stopped_after(recipe(folder), tmp_path / "stopped", 3)
        go(recipe(folder, steps=1), tmp_path / "out")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert {path.relative_to(tmp_path): oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {
        path.relative_to(tmp_path): oct(0o666 & ~mask) for path in files
    }
