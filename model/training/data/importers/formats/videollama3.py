"""VideoLLaMA3's own form (JSON or JSON lines): LLaVA's, with rates and clips of films, and streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.records import FrameSampling
from model.training.data.forms import media_of, stream_turns_of, turns_of
from model.training.data.importers.format import Draft, Format, Options, Row
from model.training.data.importers.turns import (
    dialog_turns,
    media_of_paths,
    said_of,
    seconds_of,
    texts_of,
    timed_turns,
)

CLIP_KEYS = ("fps", "max_frames", "start", "end", "frames_fps", "times_from_start")


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry."""
    entry = row.entry
    images, videos = media_of(entry, "image"), media_of(entry, "video")
    about = {"original_id": entry.get("id", ""), "references": texts_of(entry, "references")}
    if entry.get("stream"):
        times = _clip(entry, "_time")
        media = media_of_paths(images, videos, **times, **_frames(entry))
        yield Draft(timed_turns(stream_turns_of(entry), times.get("start", 0.0)), media, task="stream", **about)
        return
    clip: dict[str, Any] = _clip(entry)
    if clip.get("start") and entry.get("times_from_start") is not True:
        clip["clock"] = "film"  # such a clip's frames keep the film's times in a prompt
    media = media_of_paths(images, videos, **clip, **_frames(entry))
    turns, notes = dialog_turns(said_of(turns_of(entry)), media)
    yield Draft(turns, media, notes=notes, **about)


def _clip(entry: Mapping[str, Any], ending: str = "") -> dict[str, float]:
    keys = {name: name + ending for name in ("start", "end")}
    return {name: seconds_of(entry, key) for name, key in keys.items() if entry.get(key) is not None}


def _frames(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a film that say which frames are taken."""
    sampling = {name: entry[name] for name in ("fps", "max_frames") if entry.get(name) is not None}
    folder = {"is_frame_folder": True, "fps": entry["frames_fps"]} if entry.get("frames_fps") is not None else {}
    return {**folder, **({"sampling": FrameSampling(**sampling)} if sampling else {})}


def _fits(entry: Mapping[str, Any]) -> bool:
    return "stream" in entry or ("conversations" in entry and any(key in entry for key in CLIP_KEYS))


FORMAT = Format("videollama3", "VideoLLaMA3's training files: image, images, video, text, streams", read, _fits)
