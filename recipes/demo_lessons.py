"""Write the demo's lessons beside the published photographs: words, drawn scenes, questions, an exam, a tokenizer.

Scenes come from demo_scenes.py. Their grounds are plain, or parts of the published photographs; the exam has other
photographs than the training. Questions about photographs come out of the shards, whose rows hold an image's colours
and sides: a manifest is data.

Usage: python recipes/demo_lessons.py SHARDS FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
from demo_scenes import (
    SIDE,
    Pair,
    Scene,
    Thing,
    caption,
    clip_caption,
    draw,
    draw_clip,
    moving_things,
    pairs,
    questions,
    random_clip,
    random_scene,
)
from PIL import Image, ImageOps

from model.tokenizer import SPECIAL

EXAM_PHOTOGRAPHS = 10
"""Photographs that are grounds of the exam's scenes only."""

DESCRIBE = "Describe the scene."


def main(shards: Path, folder: Path, scenes: int = 6000, exam_scenes: int = 60) -> None:
    """Write everything. There are ten scenes to each clip of the training, three to two of the exam."""
    images = pl.read_parquet(shards / "data" / "*.parquet").to_dicts()
    grounds = [ground(image["image"]["bytes"]) for image in images]
    (training, exam), (moving, exam_moving) = pairs(), moving_things()
    random = Random(0)
    shown = draw_scenes(folder, "scenes", scenes, training, grounds[EXAM_PHOTOGRAPHS:], random)
    exams = draw_scenes(folder, "exam", exam_scenes, exam, grounds[:EXAM_PHOTOGRAPHS], random)
    files = {
        "words": [told(scene, random) for scene in shown.values()],
        "scenes": [described(path, scene) for path, scene in shown.items()],
        "questions": [line for path, scene in shown.items() for line in asked(path, scene, random)],
        "clips": draw_clips(folder, "clips", scenes // 10, moving, random),
        "qa": [*map(about, images), *compared(images)],
        "exam_scenes": [described(path, scene) for path, scene in exams.items()],
        "exam_questions": [line for path, scene in exams.items() for line in asked(path, scene, random)],
        "exam_clips": draw_clips(folder, "exam_clips", 2 * exam_scenes // 3, exam_moving, random),
    }
    files["exam"] = files["exam_scenes"] + files["exam_questions"] + files["exam_clips"]
    for name, lines in files.items():
        write(folder / f"{name}.jsonl", lines)
    captions = [{"conversations": image[c]} for image in images for c in ("short_conversations", "conversations")]
    write_tokenizer(folder / "tokenizer", texts([*captions, *(line for lines in files.values() for line in lines)]))
    print(f"{folder}: " + ", ".join(f"{len(lines)} {name}" for name, lines in files.items()), file=sys.stderr)


def ground(encoded: bytes) -> Image.Image:
    """Return a photograph as a ground for scenes: small, its shorter side twice a scene's."""
    image = Image.open(BytesIO(encoded))
    image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded small, which is quicker
    return ImageOps.fit(image.convert("RGB"), (2 * SIDE, 2 * SIDE))


def draw_scenes(
    folder: Path, name: str, count: int, among: Sequence[Pair], grounds: Sequence[Image.Image], random: Random
) -> dict[str, Scene]:
    """Draw random scenes. Return them by the path of their picture, relative to the folder."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    scenes = {f"{name}/{number:05d}.png": random_scene(among, random) for number in range(count)}
    for path, scene in scenes.items():
        draw(scene, random, grounds).save(folder / path, compress_level=1)
    return scenes


def draw_clips(folder: Path, name: str, count: int, among: Sequence[Thing], random: Random) -> list[dict[str, Any]]:
    """Draw random clips, each a folder of frames. Return each with what happens in it."""
    lines = []
    for number in range(count):
        clip = random_clip(among, random)
        path = f"{name}/{number:04d}"
        (folder / path).mkdir(parents=True, exist_ok=True)
        for second, frame in enumerate(draw_clip(clip, random)):
            frame.save(folder / path / f"{second}.png", compress_level=1)
        happens = turns([("What happens?", clip_caption(clip))], "<video>\n")
        lines.append({"video": [path], "frames_fps": 1, "conversations": happens})
    return lines


def described(path: str, scene: Scene) -> dict[str, Any]:
    """A scene's picture and its caption."""
    return {"image": path, "conversations": turns([(DESCRIBE, caption(scene))], "<image>\n")}


def asked(path: str, scene: Scene, random: Random) -> Iterator[dict[str, Any]]:
    """A scene's picture and its questions, a sample each: one answer would tell the next."""
    for pair in questions(scene, random):
        yield {"image": path, "conversations": turns([pair], "<image>\n")}


def told(scene: Scene, random: Random) -> dict[str, Any]:
    """A scene in words where the picture will be. So the language model learns where to look for its answers."""
    listed = f"{scene.left} {scene.right} {scene.ground}\n"
    return {"conversations": turns([random.choice([(DESCRIBE, caption(scene)), *questions(scene, random)])], listed)}


def about(image: dict[str, Any]) -> dict[str, Any]:
    """One image, two questions."""
    pair = [("Which colour has the most of it?", image["colours"][0]), ("What is its shape?", shape(image))]
    return {"image": [image["source_key"]], "conversations": turns(pair, "<image>\n")}


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


def turns(pairs: Iterable[tuple[str, str]], before: str = "") -> list[dict[str, str]]:
    """VideoLLaMA3's form of a conversation; `before` stands before its first question."""
    made = []
    for question, answer in pairs:
        made += [{"from": "human", "value": before + question}, {"from": "gpt", "value": answer}]
        before = ""
    return made


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def texts(lines: Iterable[dict[str, Any]]) -> Iterator[str]:
    """All that is asked and answered."""
    for line in lines:
        yield "\n".join(turn["value"].replace("<image>", "").replace("<video>", "") for turn in line["conversations"])


def write_tokenizer(folder: Path, said: Iterable[str]) -> None:
    """Train a tokenizer that has a token for each word, and bytes for the words of others."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    marks = ["user", "assistant", *(f"Time {second}.0s:,Time" for second in range(4))]  # around messages and frames
    tokenizer.train_from_iterator([*said, *marks * 2], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[2], "pad_token": SPECIAL[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python recipes/demo_lessons.py SHARDS FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
