"""ET-Instruct: conversations about times. `<image>` is the film; `<vid>` stands for the times of `src` and `tgt`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.errors import BadSampleError
from core.records import Licence, Role, Span
from model.training.data.grounding import spans_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import dialog_turns, said_of, seconds_of, text_of, video

_MARK = re.compile(r"<vid>(?P<unit>\s*s(?:econds?)?\b)?")
NOT_IN_TEXT = "times of `tgt` stand in the text without marks"


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry. Spans are those of the filled text."""
    entry = row.entry
    times: dict[Role, list[float]] = {
        "user": _times(entry.get("src"), "src"),
        "assistant": _times(entry.get("tgt"), "tgt"),
    }
    said = said_of(entry.get("conversations"))
    has_marks = any(_MARK.search(text) for _, text in said)
    left = {role: iter(listed) for role, listed in times.items()}
    filled = [(role, _filled(role, text, left)) for role, text in said]
    if has_marks and (more := [role for role, rest in left.items() if next(rest, None) is not None]):
        raise BadSampleError(f"marks do not match the times: fewer <vid> than times in turns of {more[0]}")
    film = video(entry.get("video"), duration=seconds_of(entry, "duration"))
    turns, notes = dialog_turns(filled, [film])
    spans = [[Span(media="v0", start=start, end=end) for start, end in spans_of(text)] for _, text in filled]
    yield Draft(
        [turn.model_copy(update={"spans": tuple(found)}) for turn, found in zip(turns, spans, strict=True)],
        [film],
        original_id=entry.get("id", ""),
        subset=text_of(entry, "source", ""),
        task=text_of(entry, "task", ""),
        transforms=("seconds_from_marks",) if has_marks else (),
        notes=[*notes, *([NOT_IN_TEXT] if times["assistant"] and not has_marks else [])],
    )


def _times(value: object, name: str) -> list[float]:
    if not isinstance(value, list | type(None)):
        raise BadSampleError(f"no list of times in `{name}`: {value!r:.80}")
    return [seconds_of({name: time}, name) for time in value or []]


def _filled(role: Role, text: str, left: dict[Role, Iterator[float]]) -> str:
    def time(match: re.Match[str]) -> str:
        if (seconds := next(left.get(role, iter(())), None)) is None:
            raise BadSampleError(f"marks do not match the times: more <vid> than times in turns of {role}")
        return f"{seconds:.1f}{match['unit'] or ' s'}"

    return _MARK.sub(time, text)


FORMAT = Format(
    name="et-instruct",
    about="ET-Instruct-164K, the variants txt and vid",
    read=read,
    fits=lambda entry: {"task", "src", "tgt", "conversations"} <= entry.keys(),
    profiles=(Profile("et-instruct-164k", Licence(name="unknown; the code's is BSD-3-Clause")),),
)
