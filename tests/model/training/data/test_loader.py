from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import UserError
from model import Processor
from model.training.data.annotations import AnnotationSource
from model.training.data.loader import Loader, StepRows
from model.training.data.prepare import prepare
from model.training.data.sampler import MixtureSampler
from model.training.data.samples import Sample
from model.training.data.shards import ShardSource
from model.training.recipe import parse_recipe
from model.training.stage import Stage
from tests.model.training import training_data


@dataclass
class Corpus:
    stage: Stage
    sources: list[Any]

    def loader(self, rank: int = 0, workers: int = 1, state: Any = None, **others: Any) -> Loader:
        order = MixtureSampler(self.sources, self.stage.mixture, {}, 3)
        return Loader(order, Processor.tiny(), self.stage, rank=rank, workers=workers, state=state, **others)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def world(folder: Path) -> Corpus:
    recipe = parse_recipe(training_data.recipe(folder, lanes=4, rows=8), "test")
    sources = [
        ShardSource("captions", str(folder / "shards"), "short"),
        AnnotationSource("qa", str(folder / "qa/qa.jsonl")),
    ]
    return Corpus(recipe.stages[1], sources)


def contents(step: StepRows) -> list[list[tuple[int, int]]]:
    return [[(sample.index, sample.piece) for sample in row.samples] for row in step.rows]


def steps(loader: Loader, count: int) -> list[StepRows]:
    taken = [next(loader) for _ in range(count)]
    loader.close()
    return taken


@pytest.fixture(scope="module")
def alone(world: Corpus) -> list[list[list[tuple[int, int]]]]:
    """The rows of each of 9 steps of one worker, sorted."""
    return [sorted(contents(step)) for step in steps(world.loader(), 9)]


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.thorough)])
def test_rows_of_a_step_do_not_depend_on_the_workers(world: Corpus, alone: list[Any], workers: int) -> None:
    shared = [steps(world.loader(rank, workers), 6) for rank in range(workers)]
    for number, expected in enumerate(alone[:6]):
        rows = [row for rank in range(workers) for row in contents(shared[rank][number])]
        assert sorted(rows) == expected


@pytest.mark.parametrize(("before", "after"), [pytest.param(1, 1, marks=pytest.mark.thorough), (2, 1), (1, 2)])
def test_state_resumes_the_same_rows_on_other_workers(world: Corpus, alone: list[Any], before: int, after: int) -> None:
    state: dict[int, Any] = {}
    for rank in range(before):
        state |= steps(world.loader(rank, before), 4)[-1].virtual_ranks
    assert any(lane["open"] for lane in state.values()), "nothing was open: the packer is not tried"
    state = json.loads(
        json.dumps(state), object_hook=lambda pairs: {int(k) if k.isdigit() else k: v for k, v in pairs.items()}
    )
    resumed = [steps(world.loader(rank, after, state), 5) for rank in range(after)]
    for number in range(5):
        assert sorted(row for rank in range(after) for row in contents(resumed[rank][number])) == alone[4 + number]


def test_epoch_has_every_sample_once_and_then_ends(world: Corpus) -> None:
    stage = world.stage.model_copy(update={"steps": None, "epochs": 2.0})
    once = Corpus(stage, world.sources)
    loader = once.loader()
    steps_taken = []
    while (step := next(loader)).rows:
        steps_taken.append(step)
    assert not next(loader).rows
    loader.close()
    samples = sorted(index for step in steps_taken for row in contents(step) for index, _ in row)
    assert samples == list(range(2 * MixtureSampler(world.sources, stage.mixture, {}, 3).epoch_length))
    assert steps_taken[-1].consumed_samples == len(samples)


def test_lanes_that_workers_cannot_share_are_refused(world: Corpus) -> None:
    with pytest.raises(ValueError, match="4 lanes for 3 workers: make `lanes` a multiple"):
        world.loader(0, 3)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Good ones, and one each of what can be wrong."""
    file = training_data.annotations(tmp_path, 12)
    (tmp_path / "bad.png").write_bytes(training_data.picture(1)[:60])

    def entry(question: str, **media: Any) -> str:
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "Yes."}]
        return json.dumps({**media, "conversations": turns})

    lines = [
        entry("<image>\nGood?", image="bad.png"),
        entry("<video>\nGood?", video="gone.mp4"),
        entry("<image><image>\nGood?", image=["1.png"]),
        '{"conversations": [',
        json.dumps({"conversations": [{"from": "human", "value": "Well?"}, {"from": "gpt", "value": ""}]}),
        entry("Long? " + "very " * 100),
    ]
    with open(file, "a") as opened:
        opened.write("\n".join(lines))
    return file


def test_bad_samples_are_skipped_and_named_with_their_reason(broken: Path, world: Corpus) -> None:
    stage = world.stage.model_copy(update={"steps": None, "epochs": 1.0, "mixture": parse_share({"qa": 1.0})})
    once = Corpus(stage, [AnnotationSource("qa", str(broken))])
    loader = once.loader()
    steps_taken = []
    while (step := next(loader)).rows:
        steps_taken.append(step)
    loader.close()
    skipped = sorted(reason for step in [*steps_taken, step] for reason in step.skipped)
    samples = [name for step in steps_taken for row in step.rows for name in row.samples]
    assert len(samples) == 12
    assert len(skipped) == 6
    expected = {
        13: "cannot read",
        14: "gone.mp4: no such file",
        15: "more <image> marks than images",
        16: "no JSON",
        17: "nothing to learn",
        18: "too long for a row",
    }
    for line, reason in expected.items():
        assert any(
            f"qa: qa.jsonl line {line}: " in line_skipped and reason in line_skipped for line_skipped in skipped
        ), (line, skipped)


def parse_share(mixture: dict[str, Any]) -> Any:
    stage = {"name": "s", "learning_rates": {"": 1.0}, "steps": 1, "mixture": mixture}
    return Stage.model_validate(stage).mixture


def test_hundred_bad_samples_in_a_row_end_the_run_in_one_line(tmp_path: Path, world: Corpus) -> None:
    file = tmp_path / "bad.jsonl"
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    file.write_text("\n".join(json.dumps({"image": f"{n}.png", "conversations": turns}) for n in range(300)))
    stage = world.stage.model_copy(update={"mixture": parse_share({"bad": 1.0})})
    loader = Corpus(stage, [AnnotationSource("bad", str(file))]).loader(skip_limit=100)
    with pytest.raises(ValueError, match="100 bad samples in a row, so the run stops; the last: bad: "):
        next(loader)
    loader.close()


def test_long_conversation_is_split_and_learned_once() -> None:
    turns: list[dict[str, Any]] = [{"role": "system", "content": "Be short."}]
    for number in range(6):
        picture: list[Any] = [{"type": "image", "image": training_data.picture(number)}] if number % 2 == 0 else []
        turns.append({"role": "user", "content": [*picture, f"Question {number}?"]})
        turns.append({"role": "assistant", "content": f"Answer {number}."})
    processor = Processor.tiny()
    whole = prepare(processor, Sample("s", turns), 0, 4096, 10**6)
    assert len(whole) == 1
    pieces = prepare(processor, Sample("s", turns), 0, 300, 10**6)
    assert [piece.name for piece in pieces] == [f"s part {n + 1}/{len(pieces)}" for n in range(len(pieces))]
    assert len(pieces) > 1
    assert all(piece.tokens <= 300 for piece in pieces)
    assert sum(piece.labelled for piece in pieces) == whole[0].labelled
    assert len(pieces[-1].inputs["grid_thw"]) == 3  # what was seen before comes along


def test_state_with_a_piece_that_no_longer_exists_is_refused(world: Corpus) -> None:
    """A sample can be split into fewer pieces by a version that reads its questions otherwise."""
    state = {number: {"cursor": 1, "open": [[[number, 5]]], "pending": []} for number in range(4)}
    with pytest.raises(UserError, match=r"sample 0 of the order .* train into another folder"):
        world.loader(state=state)


@pytest.mark.gpu
def test_rows_for_a_gpu_are_in_pinned_memory(world: Corpus) -> None:
    (step,) = steps(world.loader(device=torch.device("cuda", 0)), 1)
    assert all(tensor.is_pinned() for row in step.rows for tensor in row.inputs.values())


def test_row_of_text_only_uses_the_encoder_without_effect(world: Corpus) -> None:
    sample = Sample("t", [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}])
    (ready,) = prepare(Processor.tiny(), sample, 0, 100, 100)
    row = ready.inputs.with_media()
    assert row["pixel_values"].shape == (2, 588)
    assert not row["keep_mask"].any()
