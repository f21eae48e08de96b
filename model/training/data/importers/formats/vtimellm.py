"""VTimeLLM, all three stages: LLaVA's turns, with time tokens (`<s0>`, `<e0>`) whose seconds stand in `meta`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence, Medium, Span, Turn
from model.training.data.importers.film_names import PATH, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import dialog_turns, image, said_of, seconds_of, video

_TOKEN = re.compile(r"<([se])([0-9]+)>")
OTHER_LENGTH = "the clip's duration differs from its split by more than a second"


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry. Times count from the cut, as in the original."""
    entry = row.entry
    meta = Row(entry.get("meta") or {}).entry
    said = said_of(entry.get("conversations"))
    medium = image(entry["image"]) if "image" in entry else _film(entry, meta, options)
    times = Row(meta.get("token") or {}).entry
    seconds = {token: seconds_of(times, token) for token in times}
    turns, notes = dialog_turns([(role, _filled(text, seconds)) for role, text in said], [medium])
    turns = [_with_spans(turn, text, seconds) for turn, (_, text) in zip(turns, said, strict=True)]
    if medium.duration and medium.end and abs(medium.end - (medium.start or 0.0) - medium.duration) > 1.0:
        notes = [*notes, OTHER_LENGTH]
    has_spans = any(turn.spans for turn in turns)
    yield Draft(
        turns,
        [medium],
        original_id=entry.get("id", ""),
        subset=str(entry.get("source") or ""),
        task="grounding" if has_spans else "",
        transforms=("seconds_from_time_tokens",) if seconds else (),
        notes=notes,
    )


def _film(entry: Mapping[str, Any], meta: Mapping[str, Any], options: Options) -> Medium:
    times: dict[str, Any] = {}
    if (split := meta.get("split")) is not None:
        if not isinstance(split, list) or len(split) != 2:
            raise BadSampleError(f"no start and end in `split`: {split}")
        times = {name: seconds_of({name: time}, name) for name, time in zip(("start", "end"), split, strict=True)}
    if "duration" in meta:
        times["duration"] = seconds_of(meta, "duration")
    fields = {"id": entry.get("id"), "source": entry.get("source"), "start": "", "end": "", **times}
    is_cut = any(field in options.get("path", "") for field in ("{start}", "{end}"))
    return video(path_of(options, "{id}.mp4", **fields), **times, is_cut=is_cut)


def _filled(text: str, seconds: Mapping[str, float]) -> str:
    def time(match: re.Match[str]) -> str:
        if match[0] not in seconds:
            raise BadSampleError(f"a time token without a time: {match[0]}")
        return f"{seconds[match[0]]:.1f} s"

    return _TOKEN.sub(time, text)


def _with_spans(turn: Turn, text: str, seconds: Mapping[str, float]) -> Turn:
    numbers = dict.fromkeys(match[2] for match in _TOKEN.finditer(text))
    pairs = [(f"<s{number}>", f"<e{number}>") for number in numbers]
    spans = [Span(media="v0", start=seconds[s], end=seconds[e]) for s, e in pairs if s in seconds and e in seconds]
    return turn.model_copy(update={"spans": tuple(spans)}) if spans else turn


FORMAT = Format(
    name="vtimellm",
    about="VTimeLLM's three stages",
    read=read,
    fits=lambda entry: isinstance(entry.get("meta"), dict) and "conversations" in entry and "token" in entry["meta"],
    profiles=(Profile("vtimellm", Licence(name="unknown; the code's is CC-BY-NC-ND-4.0")),),
    options=PATH,
)
