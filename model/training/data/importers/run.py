"""Import a source: read its rows, draft records, look at their media, check them, write them or reject them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import BadSampleError, UserError
from core.records import Licence, Record, Source
from model.training.data.importers import embedded
from model.training.data.importers.checks import Tally, check, quantiles
from model.training.data.importers.format import ROW_ERRORS, Draft, Format, Options, Row, Unreadable, reason_of
from model.training.data.importers.media_state import MediaFolder, check_shape
from model.training.data.importers.readers import Notes, read_rows
from model.training.data.importers.report import Report
from model.training.data.importers.writer import Writer

_SHOWN = 2000  # characters of a row in rejected.jsonl


@dataclass(frozen=True)
class Job:
    """What is imported, and how.

    Attributes:
        format: The format.
        source: A file or a folder.
        dataset: Name of the data set; first part of all ids.
        licence: Licence of the records, unless a row has its own.
        media: The media folder.
        options: Options of the format.
        limit: Rows to read; None: all.
        split: Split of all records, if the rows do not say it.
        count_tokens: Number of tokens of a text; None: not counted.
    """

    format: Format
    source: Path
    dataset: str
    licence: Licence = field(default_factory=Licence)
    media: MediaFolder = field(default_factory=lambda: MediaFolder(None))
    options: Options = field(default_factory=dict)
    limit: int | None = None
    split: str = ""
    count_tokens: Callable[[str], int] | None = None


def run(job: Job, writer: Writer, progress: Callable[[Report], None] = lambda report: None) -> Report:
    """Import a source; return the report.

    Args:
        job: What to import.
        writer: Where records and rejected rows go.
        progress: Called after each row.

    Raises:
        UserError: The source cannot be read to its end.
    """
    report, tally, notes = Report(), Tally(job.count_tokens), Notes()
    rows = _rows(job, notes)
    for row in islice(rows, job.limit):
        report.rows += 1
        written = _import_row(job, row, report.rows, writer, report, tally)
        report.rows_out += written > 0
        report.rows_rejected += not written
        progress(report)
    report.limited = job.limit is not None and next(rows, None) is not None
    for note, count in notes.items():
        report.notes.add(note, str(job.source.name), count)
    _finish(report, tally)
    return report


def _rows(job: Job, notes: Notes) -> Iterator[Row]:
    if job.format.rows is not None:
        return job.format.rows(job.source, job.options)
    return read_rows(job.source, job.format.inside, notes)


def _import_row(job: Job, row: Row, number: int, writer: Writer, report: Report, tally: Tally) -> int:
    """Write the records of a row; return their number."""
    try:
        if isinstance(row.value, Unreadable):
            raise BadSampleError(row.value.reason)
        drafts = list(job.format.read(row, job.options))
        if not drafts:
            raise BadSampleError("no record in it")
        digest = row_hash(row.value)
    except UserError:
        raise
    except ROW_ERRORS as error:
        _reject(row, reason_of(error), writer, report)
        return 0
    written = 0
    for ordinal, draft in enumerate(drafts):
        place = str(number) if len(drafts) == 1 else f"{number}.{ordinal}"
        try:
            if isinstance(draft, BadSampleError):
                raise draft
            record = _record(job, row, draft, place, digest, writer)
            notes = check(record)
        except ROW_ERRORS as error:
            report.records_rejected += 1
            _reject(row, reason_of(error), writer, report, ordinal)
            continue
        for note in (*draft.notes, *notes):
            report.notes.add(note, record.id)
        for reason in writer.write(record):
            report.refused.add(reason, record.id)
        for medium in record.media:
            report.media[_STATES[medium.present]] += 1
            if medium.present is False and not report.first_missing:
                report.first_missing = medium.path
        tally.add(record)
        report.records += 1
        written += 1
    return written


_STATES: Mapping[bool | None, str] = {True: "present", False: "missing", None: "not looked at"}


def _record(job: Job, row: Row, draft: Draft, place: str, digest: str, writer: Writer) -> Record:
    original = "" if draft.original_id is None else str(draft.original_id)
    boxed = {region.media for turn in draft.turns for region in turn.regions}
    media = []
    for medium in draft.media:
        if data := draft.embedded.get(medium.key):
            path, header = embedded.store(data, writer.folder)
            size = {"width": header.width, "height": header.height}
            if medium.key in boxed and medium.width and medium.height:
                check_shape(medium, header.width, header.height)
                size = {}  # its boxes are of the size that the annotation says
            media.append(medium.model_copy(update={"path": path, "root": "records", "present": True, **size}))
        else:
            media.append(job.media.look(medium, medium.key in boxed))
    source = Source(
        dataset=job.dataset,
        subset=draft.subset,
        split=draft.split or job.split,
        original_id=original,
        url=draft.url,
        file=row.file,
        line=row.line,
        sha256=digest,
    )
    return Record(
        id=f"{job.dataset}/{original or row.key or '-'}/{place}",
        source=source,
        licence=draft.licence or job.licence,
        media=tuple(media),
        turns=tuple(draft.turns),
        choices=draft.choices,
        references=tuple(draft.references),
        task=draft.task,
        aspect=draft.aspect,
        synth=draft.synth,
        transforms=tuple(draft.transforms),
    )


def row_hash(value: Any) -> str:
    """Return the SHA-256 of a row as canonical JSON. Bytes count by their hash."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _reject(row: Row, reason: str, writer: Writer, report: Report, ordinal: int | None = None) -> None:
    report.rejected.add(reason, f"{row.file}:{row.line}: {reason}")
    shown = row.value.text if isinstance(row.value, Unreadable) else _text(row.value)
    place: dict[str, Any] = {"file": row.file, "line": row.line, "key": row.key}
    if ordinal is not None:
        place["record"] = ordinal
    writer.reject({**place, "reason": reason, "row": shown[:_SHOWN]})


def _text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain)
    except RecursionError:
        return f"nested too deeply: {type(value).__name__}"


def _finish(report: Report, tally: Tally) -> None:
    count, pair = tally.duplicates()
    if pair:
        report.notes.add(
            "media and question as in an earlier record", f"records {pair[0] + 1} and {pair[1] + 1}", count
        )
    report.about = {
        "languages": dict(tally.languages.most_common(20)),
        "languages_looked_at": tally.languages.total(),
        "characters": quantiles(tally.characters),
        "tokens": quantiles(tally.tokens) if tally.count_tokens else None,
    }
