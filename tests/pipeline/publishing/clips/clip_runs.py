"""Runs of clips whose facts are written by hand: two films in a folder, with pictures that tell their number."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from core.films import FilmFile
from core.stages import Stage
from manifests import Run
from manifests.removals import Removals
from manifests.schemas import CLIP_INDEX, FILM_INDEX, column
from manifests.storage import Folder
from pipeline.execution.runner import recipe_of
from pipeline.pools import Pool, Shard
from pipeline.pools.base import image_id
from pipeline.pools.registry import POOLS
from pipeline.pools.rows import Row
from pipeline.publishing.clips.publish import PublishedClips, publish_clips
from pipeline.recipe_file import PublishClips
from tests.core import numbered_films
from tests.stored_facts import store_run

HERE = "tests.pipeline.publishing.clips.clip_runs"
PIECES = "pieces.json"
"""File of a pool that says where its films are cut: start and end in seconds, by name."""


class Pieces(Pool):
    """Clips of the films in a folder."""

    has_images: ClassVar = False
    has_films: ClassVar = True
    index_schema: ClassVar = CLIP_INDEX

    def shards(self, root: Folder, passed_over: Counter[str]) -> Iterable[Shard]:
        pieces = json.loads(root.read(PIECES))
        return [Shard(file.base_name, file.size) for file in root.files() if file.base_name in pieces]

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        for number, (start, end) in enumerate(json.loads(root.read(PIECES))[shard.path]):
            yield {
                "key": f"{shard.path}#{number}",
                "film_id": image_id(shard.path, ""),
                "width": 128,
                "height": 64,
                "format": "mp4",
                "bytes": shard.bytes,
                "license": "CC-BY-4.0" if shard.path == "a.mp4" else None,
                "start": start,
                "end": end,
                "scene_start": start,
                "scene_end": end,
                "duration": end - start,
            }

    def film(self, root: Folder, shard: str, key: str, offset: int, length: int | None) -> FilmFile:
        return FilmFile(shard, f"{root.path}/{shard}", length=length)


class PiecesInTars(Pieces):
    """The same, of films that are no files."""

    def film(self, root: Folder, shard: str, key: str, offset: int, length: int | None) -> FilmFile:
        return FilmFile(shard, open=partial(_opened, f"{root.path}/{shard}"), length=length)


class Films(Pieces):
    """The films as a whole."""

    index_schema: ClassVar = FILM_INDEX


def _opened(path: str) -> io.BytesIO:
    return io.BytesIO(Path(path).read_bytes())


class Frames(Stage):
    """Frames that a clip was decoded into."""

    name: ClassVar = "frames"
    reads: ClassVar = ("duration",)
    writes: ClassVar = pa.schema([column("frame_times", pa.list_(pa.float32()), "Their times", bulky=True)])


class Dense(Stage):
    """Captions with events."""

    name: ClassVar = "dense_caption"
    reads: ClassVar = ("frame_times", "duration", "id")
    models: ClassVar = {"/models/big-vlm": "Apache-2.0"}
    writes: ClassVar = pa.schema(
        [
            column("event_count", pa.int32(), "Number of events", 0),
            column("dense_caption", pa.string(), "A paragraph"),
            column(
                "events",
                pa.list_(pa.struct({"start": pa.float32(), "end": pa.float32(), "text": pa.string()})),
                "Events",
            ),
            column("dense_prompt", pa.string(), "The prompt that was used"),
        ]
    )

    max_frames: int = 64

    @property
    def most_frames(self) -> int:
        return self.max_frames


class Summary(Stage):
    """Summaries of captions."""

    name: ClassVar = "summary"
    reads: ClassVar = ("dense_caption",)
    models: ClassVar = {"some/llm": None}
    writes: ClassVar = pa.schema([column("summary", pa.string(), "A summary")])


class Questions(Stage):
    """Questions and answers."""

    name: ClassVar = "questions"
    reads: ClassVar = ("dense_caption",)
    models: ClassVar = {"some/llm": None}
    writes: ClassVar = pa.schema(
        [
            column(
                "questions",
                pa.list_(
                    pa.struct(
                        {
                            "aspect": pa.string(),
                            "form": pa.string(),
                            "question": pa.string(),
                            "answer": pa.string(),
                            "options": pa.list_(pa.string()),
                            "answer_index": pa.int32(),
                            "blind": pa.bool_(),
                        }
                    )
                ),
                "Questions",
            )
        ]
    )


def event(start: float, end: float, text: str) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text}


OPEN = {"aspect": "spatial", "form": "open", "question": "Where is it?", "answer": "On the left.", "blind": False}
CHOICE = {
    "aspect": "time_order",
    "form": "choice",
    "question": "What comes first?",
    "answer": "A white square.",
    "options": ["A dog.", "A white square."],
    "answer_index": 1,
    "blind": None,
}
BLIND = {**OPEN, "question": "Is the sky blue?", "answer": "Yes.", "blind": True}

CUTS: Mapping[str, Sequence[tuple[float, float]]] = {
    "a.mp4": [(0.0, 2.0), (2.0, 5.4), (5.4, 9.9)],
    "b.mp4": [(0.0, 3.3), (3.3, 9.0)],
}


@cache
def _film(first: int) -> bytes:
    with TemporaryDirectory() as folder:
        path = numbered_films.write(Path(folder) / "a.mp4", [number / 10 for number in range(100)], first=first)
        return path.read_bytes()


def pool(folder: Path, cuts: Mapping[str, Sequence[tuple[float, float]]] = CUTS) -> Path:
    """A folder with films of 10 seconds, 10 pictures and a key frame a second. Those of b.mp4 count from 100."""
    folder.mkdir(exist_ok=True)
    for name in cuts:
        (folder / name).write_bytes(_film(100 if name == "b.mp4" else 0))
    (folder / PIECES).write_text(json.dumps(cuts))
    return folder


def facts(cuts: Mapping[str, Sequence[tuple[float, float]]] = CUTS) -> dict[str, dict[str, Any]]:
    """What the stages say of each clip."""
    clips = [(f"{name}#{number}", end - start) for name, of in cuts.items() for number, (start, end) in enumerate(of)]
    return {
        "frames": {key: {"frame_times": [0.0, 1.0]} for key, _ in clips},
        "dense_caption": {
            key: {
                "dense_caption": f"All of {key}.",
                "events": [event(0.0, 1.0, f"Start of {key}"), event(0.5, length, f"End of {key}")],
                "event_count": 2,
                "dense_prompt": "0123abcd",
            }
            for key, length in clips
        },
        "summary": {key: {"summary": f"It is {key}."} for key, _ in clips},
        "questions": {key: {"questions": [OPEN, CHOICE, BLIND]} for key, _ in clips},
    }


STAGES = tuple({"stage": f"{HERE}:{kind}"} for kind in ("Frames", "Dense", "Summary", "Questions"))


def clip_run(url: Path, folder: Path, stored: Mapping[str, Mapping[str, Any]], **changes: Any) -> Run:
    """A run over a pool of clips with these facts. Tests with it need the fixture `clips_pool`."""
    recipe = {"name": "two films", "pool": {"clips": str(folder)}, "stages": list(STAGES), **changes}
    return store_run(url, recipe, stored)


def publish(run: Run, out: Path, removed: Removals | None = None, **settings: Any) -> PublishedClips:
    how = PublishClips.model_validate({"rows_per_shard": 2, **settings})
    return publish_clips(run, recipe_of(run), how, Folder.at(out), str(out), removed)


@pytest.fixture
def clips_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes know this pool by the name `clips`."""
    monkeypatch.setitem(POOLS, "clips", Pieces)  # type: ignore[arg-type]
