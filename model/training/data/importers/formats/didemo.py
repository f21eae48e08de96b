"""DiDeMo: a sentence, and for each annotator a pair of 5-second chunks, counted from 0, the last one included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.events import event_of, grounding_draft
from model.training.data.importers.film_names import split_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import text_of, video

CHUNK = 5.0
Pair = tuple[int, int]


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the question of an entry. Only the first 30 s, or 25 s, of a film were looked at."""
    entry = row.entry
    pairs, chunks = _pairs(entry.get("times")), entry.get("num_segments", 6)
    if not isinstance(chunks, int) or not 1 <= chunks <= 6:
        raise BadSampleError(f"no number of chunks in `num_segments`: {chunks!r}")
    (first, last), how = agreed(pairs)
    event = event_of([first * CHUNK, (last + 1) * CHUNK], entry.get("description"), chunks * CHUNK)
    yield grounding_draft(
        video(entry.get("video"), end=chunks * CHUNK),
        event.text,
        [(event.start, event.end)],
        original_id=entry.get("annotation_id", ""),
        split=split_of(row.file),
        url=text_of(entry, "download_link", ""),
        transforms=("seconds_from_chunks", how, *event.transforms),
    )


def _pairs(times: object) -> list[Pair]:
    pairs = [tuple(pair) for pair in times if isinstance(pair, list)] if isinstance(times, list) else []
    if not pairs or any(
        len(pair) != 2 or not all(type(chunk) is int and 0 <= chunk < 6 for chunk in pair) for pair in pairs
    ):
        raise BadSampleError(f"no pairs of chunks in `times`: {times!r:.80}")
    if wrong := [pair for pair in pairs if pair[0] > pair[1]]:
        raise BadSampleError(f"a pair of chunks ends before it starts: {wrong[0]}")
    return pairs


def agreed(pairs: list[Pair]) -> tuple[Pair, str]:
    """Return the pair that most annotators gave; of equally many, the one that overlaps most with all others."""
    counts = Counter(pairs)
    most = [pair for pair, count in counts.items() if count == max(counts.values())]
    how = "annotators_mode" if len(most) == 1 else "annotators_best_overlap"
    return min(most, key=lambda pair: (-sum(_overlap(pair, other) for other in pairs), pair)), how


def _overlap(a: Pair, b: Pair) -> float:
    common = min(a[1], b[1]) - max(a[0], b[0]) + 1
    return max(0, common) / (max(a[1], b[1]) - min(a[0], b[0]) + 1)


FORMAT = Format(
    name="didemo",
    about="DiDeMo: moments of Flickr films",
    read=read,
    fits=lambda entry: {"description", "times", "num_segments"} <= entry.keys(),
    profiles=(Profile("didemo", Licence(name="unknown; the code's is BSD-2-Clause")),),
)
