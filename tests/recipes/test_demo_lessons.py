"""The demo's lessons: what the exam shows is nowhere in the training, and all stages of the recipe train on them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from demo_lessons import main
from PIL import Image

from model.training.recipe import parse_recipe
from model.training.run import train

RECIPE = Path(__file__).parents[2] / "recipes/train-demo.yaml"
THING = re.compile(r"(red|green|blue|purple|orange|black) (circle|square|triangle|cross)")


def published(demo: Path, count: int = 16) -> None:
    """A pool, and shards of it with the columns that the lessons read."""
    (demo / "pool/photographs").mkdir(parents=True)
    rows = []
    for number in range(count):
        key, encoded = f"photographs/{number}.jpg", io.BytesIO()
        Image.new("RGB", (240, 200 + 4 * number), (10 * number, 90, 40)).save(encoded, "JPEG")
        (demo / "pool" / key).write_bytes(encoded.getvalue())
        said = [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": f"It is green {number}."}]
        rows.append(
            {
                "id": number,
                "image": {"bytes": encoded.getvalue(), "path": key},
                "source_key": key,
                "colours": ["green", "grey"],
                "width": 240,
                "height": 200 + 4 * number,
                "brightness": number % 2 / 2,
                **{name: said[1]["value"] for name in ("short_caption", "detailed_caption")},
                **{name: said for name in ("short_conversations", "conversations")},
            }
        )
    (demo / "run/shards/data").mkdir(parents=True)
    pl.DataFrame(rows).write_parquet(demo / "run/shards/data/shard-00000.parquet")


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lessons") / "demo"
    published(folder)
    main(folder / "run/shards", folder / "lessons", scenes=120, exam_scenes=6)
    return folder


def test_no_pair_of_the_exam_is_in_any_lesson(demo: Path) -> None:
    pairs: dict[str, set[frozenset[str]]] = {}
    for name in ("words", "scenes", "questions", "exam"):
        texts = [turn["value"] for line in read(demo / f"lessons/{name}.jsonl") for turn in line["conversations"]]
        things = [{" ".join(thing) for thing in THING.findall(text)} for text in texts]
        pairs[name] = {frozenset(pair) for pair in things if len(pair) == 2}
    assert len(pairs["scenes"]) > 50
    assert pairs["exam"]
    for name in ("words", "scenes", "questions"):
        assert not pairs["exam"] & pairs[name], name


def test_every_line_has_its_media(demo: Path) -> None:
    lines = [line for name in ("scenes", "questions", "clips", "exam") for line in read(demo / f"lessons/{name}.jsonl")]
    assert len(lines) == 120 + 4 * 120 + 12 + (6 + 4 * 6 + 4)
    for line in lines:
        picture = demo / "lessons" / (line["image"] if "image" in line else line["video"][0])
        assert picture.is_file() or len(list(picture.glob("*.png"))) == 3


def test_each_word_of_a_scene_is_one_token(demo: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(demo / "lessons/tokenizer")
    for line in read(demo / "lessons/exam.jsonl"):
        for turn in line["conversations"]:
            text = turn["value"].split("\n")[-1]
            assert len(tokenizer(text)["input_ids"]) == len(re.findall(r"\w+|[.,?]", text)), text
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.decode(tokenizer("Une image à lire")["input_ids"]) == "Une image à lire", "no word is unknown"


def test_all_stages_of_the_recipe_train_on_the_lessons(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo.parent)
    written = yaml.safe_load(RECIPE.read_text())
    written["ask"] = 1
    for stage in written["stages"]:
        stage["steps"] = 1
    for name in ("short", "detailed"):
        written["sources"][name]["held_out"] = 2
    exported = train(parse_recipe(written, "test"), demo / "training")
    metrics = [json.loads(line) for line in (demo / "training/metrics.jsonl").read_text().splitlines()]
    names = ["words", "encoder", "alignment", "multitask", "video"]
    assert [line["stage"] for line in metrics if line["kind"] == "step"] == names
    assert {line["stage"] for line in metrics if line["kind"] == "held_out" and "scenes" in line["losses"]} == {
        *names[1:]
    }
    assert not [line["skipped"] for line in metrics if line.get("skipped")]
    assert (exported / "model.safetensors").is_file()
