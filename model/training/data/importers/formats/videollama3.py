"""VideoLLaMA3's own form (JSON or JSON lines): LLaVA's, with rates and clips of films, and streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import FrameSampling, Turn
from model.training.data.forms import media_of, stream_turns_of, turns_of
from model.training.data.importers.format import Draft, Format, Options, Row
from model.training.data.importers.turns import dialog_turns, media_of_paths, said_of, seconds_of

CLIP_KEYS = ("fps", "max_frames", "start", "end", "frames_fps", "times_from_start")


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry."""
    entry = row.entry
    images, videos = media_of(entry, "image"), media_of(entry, "video")
    references = entry.get("references") or ()
    about = {
        "original_id": entry.get("id", ""),
        "references": [references] if isinstance(references, str) else references,
    }
    if entry.get("stream"):
        times = {name: seconds_of(entry, f"{name}_time") for name in ("start", "end") if f"{name}_time" in entry}
        media = media_of_paths(images, videos, **times, **_frames(entry))
        yield Draft(_stream_turns(entry, times.get("start", 0.0)), media, task="stream", **about)
        return
    clip: dict[str, Any] = {name: seconds_of(entry, name) for name in ("start", "end") if entry.get(name) is not None}
    if clip.get("start") and not entry.get("times_from_start"):
        clip["clock"] = "film"  # such a clip's frames keep the film's times in a prompt
    media = media_of_paths(images, videos, **clip, **_frames(entry))
    turns, notes = dialog_turns(said_of(turns_of(entry)), media)
    yield Draft(turns, media, notes=notes, **about)


def _frames(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a film that say which frames are taken."""
    sampling = {name: entry[name] for name in ("fps", "max_frames") if entry.get(name) is not None}
    folder = {"is_frame_folder": True, "fps": entry["frames_fps"]} if entry.get("frames_fps") is not None else {}
    return {**folder, **({"sampling": FrameSampling(**sampling)} if sampling else {})}


def _stream_turns(entry: Mapping[str, Any], start: float) -> list[Turn]:
    turns = stream_turns_of(entry)
    plain = []
    for turn, (role, text) in zip(turns, said_of(turns, "role", "content"), strict=True):
        time = round(seconds_of(turn, "time") - start, 6) if turn.get("time") is not None else None
        if time is not None and time < 0:
            raise BadSampleError(f"a time before the stream: {turn['time']} s, it starts at {start:g} s")
        plain.append(Turn.model_validate({"role": role, "parts": [{"text": text}], "time": time}))
    if all(turn.time is None for turn in plain):
        raise BadSampleError("a stream without times: each turn needs one")
    return plain


def _fits(entry: Mapping[str, Any]) -> bool:
    return "stream" in entry or ("conversations" in entry and any(key in entry for key in CLIP_KEYS))


FORMAT = Format("videollama3", "VideoLLaMA3's training files: image, images, video, text, streams", read, _fits)
