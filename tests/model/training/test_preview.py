"""What people see of a sample is what the model is taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from model.training.preview import ShownSample, preview
from model.training.recipe import parse_recipe
from model.training.stage_plan import plan_stages
from tests.model import clips
from tests.model.training import training_data
from tests.model.training.training_data import picture


def shown(folder: Path, line: dict[str, Any], **settings: Any) -> ShownSample:
    (folder / "one.jsonl").write_text(json.dumps(line))
    written = training_data.recipe(folder, **settings)
    written["sources"] = {"one": {"annotations": str(folder / "one.jsonl")}}
    written["stages"] = [{**written["stages"][0], "mixture": {"one": 1}}]
    (plan,) = plan_stages(parse_recipe(written, "test"))
    (sample,) = preview(plan, 0, [0])
    return sample


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def test_learned_tokens_and_placeholders_stand_in_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    sample = shown(tmp_path, {"image": "a.png", "conversations": turns("<image>Say é.", "Ré <b>")})
    (piece,) = sample.pieces
    kinds = [(segment.kind, segment.text) for segment in piece.segments]
    assert kinds == [
        ("text", "<|im_start|>user\n"),
        ("vision", ""),
        ("text", "\nSay é.<|im_end|>\n<|im_start|>assistant\n"),
        ("learned", "Ré <b><|im_end|>"),
        ("text", "\n"),
    ]
    assert piece.tokens("vision") == 16
    (image,) = piece.media
    assert (image.count, image.tokens, image.frames[0].time) == (1, 16, None)
    assert tuple(image.frames[0].pixels_HW3[20, 20]) == training_data.COLOURS["red"]
    assert tuple(image.frames[0].pixels_HW3[4, 4]) == (255, 255, 255)


def test_pruned_tokens_of_a_film_are_faded(tmp_path: Path) -> None:
    clips.write(tmp_path / "clip.mp4", [k / 2 for k in range(8)])
    line = {"video": "clip.mp4", "end": 3.0, "conversations": turns("<video>What?", "Light.")}
    plain, pruned = (shown(tmp_path, line, pruning=pruning) for pruning in (None, {"threshold": 255}))
    assert not plain.error
    (film,), (faded,) = plain.pieces[0].media, pruned.pieces[0].media
    assert [frame.time for frame in film.frames] == [0.0, 1.0, 2.0]
    assert (film.tokens, film.before) == (film.before, faded.before)
    assert faded.tokens == film.frames[0].tokens + 2, "one token of each frame behind the first"
    first, second = faded.frames[:2]
    assert np.array_equal(first.pixels_HW3, film.frames[0].pixels_HW3)
    assert np.ptp(second.pixels_HW3[-1, -1].astype(int) - 128) <= 40
    assert np.array_equal(second.pixels_HW3[0, 0], film.frames[1].pixels_HW3[0, 0]), "the token that stays"


def test_bad_sample_is_shown_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    sample = shown(tmp_path, {"image": "broken.png", "conversations": turns("<image>?", "!")})
    assert not sample.pieces
    assert sample.error.startswith("one: one.jsonl line 1: cannot read ")
