"""LLoVi's captions: one for each second of a film, or for each frame by its number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from model.training.data.importers.captioned import ENDING
from model.training.data.importers.dense_captions import DENSE_QUESTION, WRITTEN, dense_turns
from model.training.data.importers.format import Draft, Format, Options, Row
from model.training.data.importers.narrations import CLEANED, clean
from model.training.data.importers.turns import path_text, seconds_of, text_of, video


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the dense captions of a film."""
    film = video(path_text(row.key) + options.get("ending", ""))
    captions = _captions(row.value, options)
    edges = [*(time for time, _ in captions), _last(captions)]
    events = [(edges[number], edges[number + 1], clean(text)) for number, (_, text) in enumerate(captions)]
    turns = dense_turns(film, events, options.get("question", DENSE_QUESTION))
    yield Draft(turns, [film], original_id=row.key, task="dense_caption", transforms=(WRITTEN, CLEANED))


def _captions(value: Any, options: Options) -> list[tuple[float, str]]:
    """Return the captions with the times of their frames."""
    if isinstance(value, list):
        step = seconds_of(options, "seconds", 1.0)
        return [(round(number * step, 6), text_of({"caption": text}, "caption")) for number, text in enumerate(value)]
    if not isinstance(value, Mapping):
        raise BadSampleError(f"no captions: {type(value).__name__}")
    if not (rate := seconds_of(options, "fps", 0.0)):
        raise BadSampleError("numbers of frames without a rate: give --set fps=RATE")
    if wrong := [key for key in value if not str(key).isdecimal()]:
        raise BadSampleError(f"no number of a frame: {str(wrong[0])[:40]!r}")
    return [(round(int(key) / rate, 6), text_of(value, key)) for key in sorted(value, key=int)]


def _last(captions: list[tuple[float, str]]) -> float:
    """Return where the last caption ends: as long after its start as the one before it."""
    times = [time for time, _ in captions]
    return round(2 * times[-1] - times[-2], 6) if len(times) > 1 else (times or [0.0])[0]


FORMAT = Format(
    name="llovi",
    about="LLoVi's captions of each second or frame",
    read=read,
    fits=lambda entry: (
        bool(entry) and all(str(key).isdecimal() and isinstance(text, str) for key, text in entry.items())
    ),
    options={
        "seconds": "seconds between the captions of a list; default: 1",
        "fps": "frames per second, where captions are numbered by frames",
        "question": f"default: {DENSE_QUESTION}",
        "ending": ENDING,
    },
)
