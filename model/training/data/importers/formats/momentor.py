"""Moment-10M (Momentor), packed: film → type of task → conversations with `{moment}` where a time stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError, UserError
from core.records import Licence, Span
from model.training.data.grounding import span_text
from model.training.data.importers.events import span_of
from model.training.data.importers.film_names import PATH, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.turns import dialog_turns, list_of_turns, said_of, seconds_of, video

_FIELD = re.compile(r"\{(\w+)\}")
THRESHOLDS: Mapping[str, float] = {
    "segment_caption": 0.145,
    "instance_segment": 0.146,
    "instance_caption": 0.126,
    "appearance": 0.129,
    "qa": 0.177,
    "instance_qa": 0.159,
    "cross_segment_qa": 0.211,
    "hypothetical_scene": 0.888,
    "comparison": 0.195,
    "segment_localisation": 1.067,
}
"""Least `match_score` by type, as published."""

NO_THRESHOLD = "a type without a threshold, of which all is taken"


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft the conversations of a film."""
    thresholds = {**THRESHOLDS, **_given(options.get("thresholds", ""))}
    film = video(path_of(options, "{id}.mp4", id=row.key))
    pieces = [(str(kind), one) for kind, listed in row.entry.items() for one in list_of_turns(listed)]

    def draft(piece: tuple[str, Mapping[str, Any]]) -> Draft:
        kind, one = piece
        least = thresholds.get(_type(kind))
        score = one.get("match_score")
        if least is not None and not (isinstance(score, int | float) and score >= least):
            raise BadSampleError(f"no score, or one below the threshold of its type: {score} of {least:g}, {kind}")
        variables = Row(one.get("variables") or {}).entry
        said = said_of(one.get("conversations"))
        filled = [(role, _FIELD.sub(lambda match: _text(match[1], variables), text)) for role, text in said]
        turns, notes = dialog_turns(filled, [film])
        spans = [_spans(text, variables) for _, text in said]
        return Draft(
            [turn.model_copy(update={"spans": found}) for turn, found in zip(turns, spans, strict=True)],
            [film],
            original_id=f"{row.key}/{one.get('id', '')}",
            subset=kind,
            task="grounding" if any(spans) else "",
            transforms=("templates_filled",) if filled != said else (),
            notes=[*notes, *([NO_THRESHOLD] if least is None else [])],
        )

    yield from drafts_of(pieces, draft)


def _type(kind: str) -> str:
    return re.sub(r"[\s-]+", "_", kind.strip().lower()).replace("localization", "localisation")


def _given(text: str) -> dict[str, float]:
    try:
        pairs = [pair.rsplit("=", 1) for pair in text.split(",") if pair]
        return {_type(kind): float(least) for kind, least in pairs}
    except ValueError as error:
        raise UserError(f"--set thresholds={text}: give them as qa=0.2,comparison=0") from error


def _text(name: str, variables: Mapping[str, Any]) -> str:
    if (value := variables.get(name)) is None:
        raise BadSampleError(f"a template without a value: {{{name}}}")
    if isinstance(value, list):
        return span_text([span_of(value)[:2]])
    return value if isinstance(value, str) else f"{seconds_of(variables, name):.1f} s"


def _spans(text: str, variables: Mapping[str, Any]) -> tuple[Span, ...]:
    times = [variables[name] for name in _FIELD.findall(text) if isinstance(variables.get(name), list)]
    return tuple(Span(media="v0", start=start, end=end) for start, end, _ in map(span_of, times))


def _fits(entry: Mapping[str, Any]) -> bool:
    rows = [one for listed in entry.values() if isinstance(listed, list) for one in listed]
    return bool(rows) and all(isinstance(one, dict) and {"variables", "conversations"} <= one.keys() for one in rows)


FORMAT = Format(
    name="momentor",
    about="Moment-10M, packed by film and type",
    read=read,
    fits=_fits,
    profiles=(Profile("moment-10m", Licence()),),
    options=PATH | {"thresholds": "least match_score by type, such as qa=0.2,comparison=0 (the published ones)"},
)
