"""Ego4D's narrations: for each film points in time with what happens, by one or two annotators. They become streams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.captioned import ENDING
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.narrations import CLEANED, clean
from model.training.data.importers.turns import assistant, list_of_turns, path_text, seconds_of, text_of, user, video

QUESTION = "Narrate what happens."
SHORT = "a narration of fewer than two words was left out"
BROKEN = "a narration without text or time was left out"

Narration = tuple[float, str]


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a stream for each annotator of a film, and for each `window` of it."""
    listed = list_of_turns(row.entry.get("narrations"))
    by_annotator: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for narration in listed:
        by_annotator[str(narration.get("_annotation_uid") or "")].append(narration)
    window = seconds_of(options, "window", 0.0) or None

    def draft(piece: tuple[str, int | None, Sequence[Narration], Sequence[str]]) -> Draft:
        annotator, number, spoken, notes = piece
        start = round((window or 0) * (number or 0), 6)
        end = None if window is None else round(min(start + window, spoken[-1][0] + 1.0), 6)
        film = video(path_text(row.key) + options.get("ending", ""), start=None if window is None else start, end=end)
        said = [assistant(text, time=round(time - start, 6)) for time, text in spoken]
        turns = [user(options.get("question", QUESTION), time=0.0), *said]
        name = f"{row.key}/{annotator}" if annotator else row.key
        return Draft(turns, [film], original_id=name, task="stream", transforms=(CLEANED,), notes=notes)

    yield from drafts_of(_pieces(by_annotator, window), draft)


def _pieces(
    by_annotator: Mapping[str, Sequence[Mapping[str, Any]]], window: float | None
) -> Iterator[tuple[str, int | None, list[Narration], list[str]]]:
    for annotator, narrations in by_annotator.items():
        spoken, notes = _spoken(narrations)
        if not window:
            windows: dict[int | None, list[Narration]] = {None: spoken} if spoken else {}
        else:
            windows = defaultdict(list)
            for narration in spoken:
                windows[int(narration[0] // window)].append(narration)
        for number, inside in windows.items():
            yield annotator, number, inside, notes
            notes = []  # counted once


def _spoken(narrations: Sequence[Mapping[str, Any]]) -> tuple[list[Narration], list[str]]:
    """Return the narrations that can be used, by time, and a note for each that cannot."""
    spoken, notes = [], list[str]()
    for narration in narrations:
        try:
            time, text = seconds_of(narration, "time"), clean(text_of(narration, "text"))
        except BadSampleError:
            notes.append(BROKEN)
            continue
        if len(text.split()) < 2:
            notes.append(SHORT)
        else:
            spoken.append((time, text))
    return sorted(spoken), notes


FORMAT = Format(
    name="ego4d",
    about="Ego4D's narrations as streams (all_narrations_redacted.json)",
    read=read,
    fits=lambda entry: isinstance(entry.get("narrations"), list),
    profiles=(Profile("ego4d", Licence(name="Ego4D's own", gated=True)),),
    options={
        "window": "seconds of a stream; default: the whole film",
        "question": f"default: {QUESTION}",
        "ending": ENDING,
    },
    inside=("videos",),
)
