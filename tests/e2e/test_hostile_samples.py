"""Annotations of strangers through a whole training: what is bad is skipped and named, everything else is learned."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from model.training.metrics_log import read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from tests.model.clips import write
from tests.model.training import training_data

HUGE = 10**399
TURNS = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "It."}]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", [k / 10 for k in range(20)])


def _recipe(file: Path, **source: Any) -> dict[str, Any]:
    """One epoch over a file of annotations."""
    written = training_data.recipe(file.parent / "unused", steps=None, epochs=1)
    stage = {**written["stages"][0], "mixture": {"qa": 1.0}, "lanes": 2}
    return {**written, "sources": {"qa": {"annotations": str(file), **source}}, "stages": [stage], "ask": 0}


def _trained(file: Path, out: Path, **source: Any) -> tuple[int, list[str]]:
    """Samples that were learned, and what was said of those that were skipped."""
    train(parse_recipe(_recipe(file, **source), "test"), out)
    steps = [record for record in read_metrics(out) if record["kind"] == "step"]
    return sum(step["samples"] for step in steps), [line for step in steps for line in step["skipped"]]


def _written(folder: Path, clip: Path, entries: list[dict[str, Any]]) -> Path:
    """Six good ones, then these; and six more, so that skipping is told before the last step."""
    folder.mkdir(exist_ok=True)
    os.link(clip, folder / "clip.mp4")
    good = [json.dumps(training_data.annotation(folder, number)) for number in range(6)]
    file = folder / "qa.jsonl"
    file.write_text("\n".join([*good, *map(json.dumps, entries), *good]) + "\n")
    return file


def _film(**settings: Any) -> dict[str, Any]:
    return {"video": "clip.mp4", **settings, "conversations": TURNS}


def _stream(time: Any = 1.0, **settings: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "Well?", "time": time}, {"role": "assistant", "content": "So."}]
    return {"stream": True, "video": "clip.mp4", **settings, "conversation": turns}


VALUES = [1e12, 1e300, HUGE, -HUGE, float("inf"), float("nan"), -1, "2", "1e9", True, [1], {"a": 1}]


def test_impossible_numbers_of_a_film_are_bad_samples(tmp_path: Path, clip: Path) -> None:
    # An end behind the film's is its end.
    ends = [value for value in VALUES if value not in (1e12, 1e300, HUGE, float("inf"))]
    entries = [_film(**{key: value}) for key in ("fps", "max_frames", "start", "frames_fps") for value in VALUES]
    entries += [_film(end=value) for value in ends]
    learned, skipped = _trained(_written(tmp_path / "qa", clip, entries), tmp_path / "out")
    assert learned == 12
    named = sorted(int(line.split(" line ")[1].split(":")[0]) for line in skipped)
    assert named == list(range(7, 7 + len(entries)))
    assert all("give numbers, fps above 0 and up to 1000, max_frames of 1 or more" in line for line in skipped)
    assert all(len(line) < 400 and "\n" not in line for line in skipped)


def test_large_valid_numbers_are_learned(tmp_path: Path, clip: Path) -> None:
    """No limit of frames, an end behind the film's, a rate above the film's."""
    entries = [
        _film(**one)
        for one in ({"max_frames": 2**31 - 1}, {"end": HUGE}, {"end": 1e300}, {"fps": 1000.0, "max_frames": 3})
    ]
    assert _trained(_written(tmp_path / "qa", clip, entries), tmp_path / "out") == (16, [])


def test_impossible_times_of_a_stream_are_bad_samples(tmp_path: Path, clip: Path) -> None:
    entries = [
        entry for value in VALUES for entry in (_stream(value), _stream(start_time=value), _stream(end_time=value))
    ]
    learned, skipped = _trained(_written(tmp_path / "qa", clip, entries), tmp_path / "out")
    assert learned == 12
    assert len(skipped) == len(entries)
    assert all("give seconds, 0 or more" in line and len(line) < 300 for line in skipped)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("storage size overflow"),
        *(
            pytest.param(error, marks=pytest.mark.thorough)
            for error in (OverflowError("large"), RecursionError("deep"))
        ),
    ],
)
def test_error_of_one_sample_is_a_bad_sample(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever in a decoder or a tensor's size raises them."""
    from core import videos as frames

    def probe(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(frames, "probe", probe)
    learned, skipped = _trained(_written(tmp_path / "qa", clip, [_film()]), tmp_path / "out")
    assert learned == 12
    (line,) = skipped
    assert line.startswith(f"qa: qa.jsonl line 7: {type(error).__name__}: ")


def test_paths_in_hostile_annotations_are_never_opened(tmp_path: Path, clip: Path) -> None:
    """Files elsewhere, links to them, devices, pipes, playlists: each is skipped with its reason, and nothing hangs."""
    (tmp_path / "secret.png").write_bytes(training_data.picture(0))
    folder = tmp_path / "qa"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]
    named = {
        str(tmp_path / "secret.png"): "lies outside of",
        "../secret.png": "lies outside of",
        "link.png": "lies outside of",
        "/dev/zero": "lies outside of",
        "/proc/self/environ": "lies outside of",
        "pipe.png": "no such file",
        "a\0b": "no path",
        "n" * 6000: "no such file",
    }
    entries: list[dict[str, Any]] = [{"image": path, "conversations": turns} for path in named]
    entries.append({"video": "list.mp4", "conversations": turns})
    learned, skipped = _trained(_written(folder, clip, entries), tmp_path / "out")
    assert learned == 12
    for number, reason in enumerate([*named.values(), "a playlist, or no known film"], 7):
        (line,) = [line for line in skipped if f"line {number}: " in line]
        assert reason in line


def test_training_with_outside_media_resumes_after_adding_roots(tmp_path: Path) -> None:
    """As recipes of before had them: the recipe that was stored knows no `roots`."""
    (tmp_path / "photos").mkdir()
    for number in range(8):
        (tmp_path / f"photos/{number}.png").write_bytes(training_data.picture(number))
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    file = tmp_path / "notes/qa.jsonl"
    file.parent.mkdir()
    lines = [json.dumps({"image": str(tmp_path / f"photos/{n}.png"), "conversations": turns}) for n in range(8)]
    text = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]}
    file.write_text("\n".join([json.dumps(text), *lines]))
    with pytest.raises(
        ValueError, match=r"5 bad samples in a row.* lies outside of .*/notes: .* by `roots:` of the"
    ) as error:
        train(parse_recipe({**_recipe(file), "skip_limit": 5}, "test"), tmp_path / "out")
    assert "\n" not in str(error.value)
    stored = tmp_path / "out/recipe.yaml"
    stored.write_text(stored.read_text().replace("    roots: []\n", ""))
    assert _trained(file, tmp_path / "out", roots=[str(tmp_path / "photos")]) == (9, [])


@pytest.mark.parametrize(
    ("change", "position"),
    [
        (lambda written: written.update(seed=HUGE), "seed: 1000"),
        (lambda written: written["stages"][0].update(fps=1e300), "stages.0.fps: 1e[+]300"),
        (lambda written: written["stages"][0].update(fps=float("inf")), "stages.0.fps: inf"),
        (lambda written: written["stages"][0].update(fps=1e12), "stages.0.fps: Input should be less"),
        (lambda written: written["stages"][0].update(epochs=float("inf")), "stages.0.epochs: inf"),
        (
            lambda written: written["stages"][0]["learning_rates"].update(vision=HUGE),
            "stages.0.learning_rates.vision: 1",
        ),
        (lambda written: written["stages"][0]["mixture"].update(qa=float("nan")), "stages.0.mixture.qa: nan"),
    ],
)
def test_impossible_numbers_of_a_recipe_are_one_line_errors(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], position: str
) -> None:
    written = _recipe(tmp_path / "qa.jsonl")
    change(written)
    with pytest.raises(ValueError, match=f"^r.yaml: {position}") as error:
        parse_recipe(written, "r.yaml")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


HALF, NUL = "\ud83d", "\0\x1b[31m"


def test_text_with_invalid_unicode_is_a_bad_sample(tmp_path: Path, clip: Path) -> None:
    """Half a character in JSON's escapes; what controls terminals is text as any other."""
    entries: list[tuple[dict[str, Any], int]] = [
        ({"conversations": [{"from": "human", "value": f"a{HALF}?"}, {"from": "gpt", "value": "It."}]}, 0),
        ({"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": f"a{HALF}"}]}, 1),
        ({"conversations": [{"from": "system", "value": f"a{HALF}"}, *TURNS]}, 0),
        ({"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": f"a{HALF}"}]}, 1),
        (_stream() | {"conversation": [{"role": "user", "content": f"a{HALF}"}, *_stream()["conversation"][1:]]}, 0),
    ]
    bad = [{"video": "clip.mp4", **entry} for entry, _ in entries]
    learned, skipped = _trained(_written(tmp_path / "qa", clip, [*bad, _spoken(NUL)]), tmp_path / "out")
    assert learned == 13
    assert sorted(skipped) == sorted(
        f"qa: qa.jsonl line {number}: message {message}: not valid Unicode: U+D83D at character 1 is half of one: "
        "write the text as UTF-8"
        for number, (_, message) in enumerate(entries, 7)
    )


def _spoken(answer: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": answer}]}


def test_source_without_a_sample_stops_before_training(tmp_path: Path) -> None:
    """Beside a good one, however few its lines are; nothing is left behind that a mended recipe would differ from."""
    folder = tmp_path / "qa"
    folder.mkdir()
    (folder / "photos").mkdir()
    lines = [{"image": "photos", "conversations": _spoken("It.")["conversations"]}] * 3
    (folder / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    written = training_data.recipe(tmp_path / "other", steps=None, epochs=1)
    written["sources"]["new"] = {"annotations": str(folder / "qa.jsonl")}
    written["stages"][1]["mixture"]["new"] = 1.0
    with pytest.raises(
        UserError, match=r"^none of 3 samples .*: new: qa\.jsonl line 1: .*photos: a folder, not a file"
    ) as error:
        train(parse_recipe(written, "test"), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_source_with_every_second_line_bad_is_trained_on(tmp_path: Path) -> None:
    """Also where those that are tried would all be bad if they were spread evenly."""
    bad, good = json.dumps({"image": "none.png", **_spoken("It.")}), json.dumps(_spoken("It."))
    (tmp_path / "qa").mkdir()
    file = tmp_path / "qa/qa.jsonl"
    file.write_text("\n".join([bad, good] * 200))
    learned, skipped = _trained(file, tmp_path / "out")
    assert learned == 200
    assert skipped
    assert all("none.png: no such file" in line for line in skipped)


def test_training_on_broken_media_only_ends_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "qa"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    line = {"image": "a.png", "conversations": _spoken("It.")["conversations"]}
    (folder / "qa.jsonl").write_text("\n".join([json.dumps(line)] * 3))
    with pytest.raises(
        UserError, match=r"not one sample to train on; the last of 3 .*: qa: qa\.jsonl line \d: cannot read .*a\.png"
    ) as error:
        train(parse_recipe(_recipe(folder / "qa.jsonl"), "test"), tmp_path / "out")
    assert "\n" not in str(error.value)


def test_name_with_invalid_unicode_is_refused_in_a_recipe(tmp_path: Path) -> None:
    written = _recipe(tmp_path / "qa.jsonl") | {"sources": {HALF: {"annotations": "qa.jsonl"}}}
    with pytest.raises(UserError, match=r"^r.yaml: sources: not valid Unicode: U\+D83D at character 0"):
        parse_recipe(written, "r.yaml")
