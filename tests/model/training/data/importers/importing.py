"""Import entries that are written in a test, and what becomes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.records import Record
from manifests.record_files import read_records
from manifests.renderers import RENDERERS
from model.training.data.importers.media_state import MediaFolder
from model.training.data.importers.registry import format_named
from model.training.data.importers.report import Report
from model.training.data.importers.run import Job, run
from model.training.data.importers.writer import REJECTED, Writer


@dataclass(frozen=True)
class Imported:
    """Records, rejected rows, and the report of one import."""

    records: list[Record]
    rejected: list[dict[str, Any]]
    report: Report

    @property
    def reasons(self) -> list[str]:
        return [row["reason"] for row in self.rejected]

    def rendered(self, form: str, *without: str) -> list[dict[str, Any]]:
        """The records in a trainer's form, without their ids and other keys."""
        entries = [RENDERERS[form](record) for record in self.records]
        return [{key: value for key, value in entry.items() if key not in ("id", *without)} for entry in entries]


def import_source(
    format_: str, source: Path, media: Path | None = None, out: Path | None = None, **others: Any
) -> Imported:
    """Import a file or a folder; `others` are settings of the `Job`. Conservation is checked."""
    out = out or source.parent / f"{source.name}-imported"
    out.mkdir()
    job = Job(format_named(format_), source, others.pop("dataset", "set"), media=MediaFolder(media), **others)
    with Writer(out) as writer:
        report = run(job, writer)
    rejected = [json.loads(line) for line in (out / REJECTED).read_bytes().splitlines()]
    records = list(read_records(out))
    assert report.rows == report.rows_out + report.rows_rejected
    assert len(records) == report.records
    assert report.rejected.total == len(rejected)
    return Imported(records, rejected, report)


def import_entries(
    folder: Path, format_: str, entries: list[Any], media: Path | None = None, **others: Any
) -> Imported:
    """Import entries from JSON lines; texts stand there as they are."""
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    source = folder / "entries.jsonl"
    source.write_text("\n".join(lines) + "\n")
    return import_source(format_, source, media, **others)
