"""Small data to train on, the same every time: published shards, and annotations of every kind."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from manifests.shards import CONVERSATIONS, IMAGE

COLOURS = {"red": (200, 30, 30), "green": (30, 170, 40), "blue": (30, 60, 210), "yellow": (220, 200, 40)}


def picture(number: int, side: int = 56) -> bytes:
    """A PNG: one colour, with a square whose place tells the number."""
    image = Image.new("RGB", (side, side), list(COLOURS.values())[number % 4])
    image.paste((255, 255, 255), (number % 5 * 8, number // 5 % 5 * 8, number % 5 * 8 + 8, number // 5 % 5 * 8 + 8))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def caption(number: int) -> str:
    """What is to be said of it."""
    return f"{list(COLOURS)[number % 4]} {number}"


def shards(folder: Path, images: int = 40, per_shard: int = 16, per_group: int = 4) -> Path:
    """A dataset with both captions, as `publish` lays it out."""
    (folder / "data").mkdir(parents=True)
    for shard, first in enumerate(range(0, images, per_shard)):
        numbers = range(first, min(first + per_shard, images))

        def turns(words: str) -> list[dict[str, str]]:
            return [{"from": "human", "value": "<image>\nSay it."}, {"from": "gpt", "value": words}]

        table = pa.table(
            {
                "id": pa.array([1000 + n for n in numbers]),
                "image": pa.array([{"bytes": picture(n), "path": f"{n}.png"} for n in numbers], IMAGE),
                "short_caption": [caption(n) for n in numbers],
                "detailed_caption": [f"It is {caption(n)}, with a square." for n in numbers],
                "conversations": pa.array(
                    [turns(f"It is {caption(n)}, with a square.") for n in numbers], CONVERSATIONS
                ),
                "short_conversations": pa.array([turns(caption(n)) for n in numbers], CONVERSATIONS),
            }
        )
        pq.write_table(table, folder / f"data/shard-{shard:05d}.parquet", row_group_size=per_group)
    return folder


def annotation(folder: Path, number: int) -> dict[str, Any]:
    """An entry: by turns an image, two of them, and text alone."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png", f"{number + 1}.png"]
    for at, name in enumerate(names):
        (folder / name).write_bytes(picture(number + at))
    if number % 3 == 0:
        question, images = "<image>\nWhat colour?", names[:1]
    elif number % 3 == 1:
        question, images = "<image><image>\nWhich colours?", names
    else:
        question, images = f"Count to {number}.", []
    answer = " and ".join(caption(number + at) for at in range(len(images))) or str(number)
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"image": images, "conversations": turns} if images else {"conversations": turns}


def annotations(folder: Path, count: int = 30) -> Path:
    """A JSONL and its images."""
    file = folder / "qa.jsonl"
    lines = [json.dumps(annotation(folder, number)) for number in range(count)]
    file.write_text("\n".join(lines) + "\n")
    return file


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Two stages over both sources; `changes` go into every stage."""
    if not (folder / "shards").is_dir():
        shards(folder / "shards")
        annotations(folder / "qa")
    rates = {"vision": 1e-3, "projector": 1e-3, "language": 1e-3}
    common: dict[str, Any] = {
        "tokens": 256,
        "visual_tokens": 64,
        "rows": 4,
        "steps": 6,
        "warmup": 0.1,
        "learning_rates": rates,
    }
    common |= changes
    return {
        "model": {"preset": "tiny"},
        "seed": 3,
        "sources": {
            "captions": {"shards": str(folder / "shards"), "caption": "short", "held_out": 4},
            "qa": {"annotations": str(folder / "qa/qa.jsonl"), "held_out": 2},
        },
        "stages": [
            {"name": "first", "mixture": {"captions": 1.0}, **common},
            {"name": "second", "mixture": {"captions": 0.5, "qa": {"samples": 20}}, **common},
        ],
        "ask": 1,
        "workers": 0,
        "save_every": 2,
        "evaluate_every": 100,
        "export_dtype": "float32",
    }


def lengths(seed: int, count: int) -> Any:
    """Tokens of samples as a mixture has them: 15 % text, 70 % images, 15 % clips; mean about 800, up to 4,000."""
    dice = np.random.default_rng(seed)
    kinds = dice.choice(3, count, p=[0.15, 0.7, 0.15])
    drawn = [dice.lognormal(5.0, 0.8, count), dice.lognormal(6.4, 0.6, count), dice.lognormal(7.4, 0.5, count)]
    return np.clip(np.choose(kinds, drawn), 16, 4000).astype(int)
