"""Make the records of a clip: drafts of its facts, with ids, provenance and licence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captioners.films.clip_stage import evenly_spaced
from core.errors import BadSampleError, UserError
from core.records import Licence, Medium, Record, Source, Synthesis
from model.training.data.importers.checks import check
from model.training.data.importers.format import ROW_ERRORS, Draft, reason_of
from pipeline.publishing.clips.drafts import Piece, Row, pieces_of
from pipeline.publishing.clips.facts import FRAME_TIMES, Author
from pipeline.publishing.clips.media import KEY

NOTHING = "no facts: no record can be made of the clip"
_DIGITS = 3
_LATER = "later"  # path of a clip that is not cut yet


@dataclass(frozen=True)
class Dataset:
    """What the records of a publication have in common.

    Attributes:
        name: Name of the data set.
        subsets: The subsets that are published.
        authors: What wrote each fact, by column.
    """

    name: str
    subsets: Sequence[str]
    authors: Mapping[str, Author]


@dataclass
class ClipRecords:
    """The records of a clip.

    Attributes:
        records: The records, by subset.
        rejected: How many facts became no record, by the reason's first part.
    """

    records: dict[str, list[Record]] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)

    def of(self, film: Medium) -> ClipRecords:
        """Return the records with the medium that the clip has become."""
        records = {name: [one.model_copy(update={"media": (film,)}) for one in of] for name, of in self.records.items()}
        return ClipRecords(records, self.rejected)


def records_of(row: Row, dataset: Dataset) -> ClipRecords:
    """Return the records of a clip, whose medium is not known yet. Ids do not depend on the subsets that are published.

    Args:
        row: The index and facts of a clip, by column.
        dataset: What all records have in common.
    """
    made = ClipRecords({subset: [] for subset in dataset.subsets})
    length = row["end"] - row["start"]
    film = Medium(key=KEY, type="video", path=_LATER, duration=length)
    for ordinal, piece in enumerate(pieces_of(row, film, length, original_id(row))):
        if piece.subset and piece.subset not in made.records:
            continue
        try:
            if isinstance(piece.draft, BadSampleError):
                raise piece.draft
            record = _record(row, piece, piece.draft, ordinal, dataset)
            check(record)
        except UserError:
            raise
        except ROW_ERRORS as error:
            made.rejected[f"{piece.fact}: {reason_of(error).partition(':')[0]}"] += 1
            continue
        made.records[piece.subset].append(record)
    return made


def original_id(row: Row) -> str:
    """Return the film and the span of a clip on its clock, in seconds: `123:4.000-9.500`."""
    return f"{row['film_id']}:{row['start']:.{_DIGITS}f}-{row['end']:.{_DIGITS}f}"


def _record(row: Row, piece: Piece, draft: Draft, ordinal: int, dataset: Dataset) -> Record:
    author = dataset.authors[piece.fact]
    file, key = row.get("shard") or "", row.get("key") or ""
    return Record(
        id=f"{dataset.name}/{row['id']}/{ordinal}",
        source=Source(
            dataset=dataset.name,
            subset=piece.subset,
            original_id=original_id(row),
            url=row.get("url") or "",
            file=file if key in ("", file) else f"{file}/{key}",
        ),
        licence=Licence(name=row.get("license") or "unknown", generator=author.model),
        media=tuple(draft.media),
        turns=tuple(draft.turns),
        choices=draft.choices,
        task=draft.task,
        aspect=draft.aspect,
        synth=_synthesis(row, author),
        transforms=tuple(draft.transforms),
    )


def _synthesis(row: Row, author: Author) -> Synthesis:
    prompt: Any = row.get(author.prompt) if author.prompt else None
    times = row.get(FRAME_TIMES) or () if author.most_frames else ()
    frames = tuple(round(float(times[n]), _DIGITS) for n in evenly_spaced(len(times), author.most_frames))
    return Synthesis(model=author.model, prompt_sha256=prompt or "", frames=frames)
