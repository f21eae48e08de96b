"""What `vl3syn import` says: progress, the report as a file and on the terminal, the list of formats."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.training.data.importers.report import Report
    from model.training.data.importers.run import Job

_EVERY = 2.0  # seconds between lines of progress
_HASHED = 2 << 30  # bytes: larger files have a size in the report, and no hash


def progress() -> Callable[[Report], None]:
    """Return what prints a line on stderr now and then."""
    from pipeline.commands.output import say

    last = time.monotonic()

    def tell(report: Report) -> None:
        nonlocal last
        if report.rows % 100 == 0 and time.monotonic() - last > _EVERY:
            last = time.monotonic()
            say(f"{report.rows:,} rows read, {report.records:,} records, {report.rejected.total:,} rejected")

    return tell


def write_report(folder: Path, job: Job, report: Report, writer: Any, form: str, as_: str | None) -> None:
    """Write `import.json`: what was imported, with which versions, and all counts."""
    import json

    from manifests.version import __version__
    from model.training.data.importers.writer import REPORT

    about = {
        "vl3syn": __version__,
        "python": sys.version.split()[0],
        "format": job.format.name,
        "dataset": job.dataset,
        "licence": job.licence.model_dump(),
        "options": dict(job.options),
        "form": form,
        "files": writer.files,
        "sources": _sources(job),
        "as": {"form": as_, "records": writer.rendered, "left_beside": writer.beside} if as_ else None,
    }
    text = json.dumps({**about, **report.as_json()}, ensure_ascii=False, indent=2)
    (folder / REPORT).write_bytes(text.encode("utf-8", "backslashreplace"))


def _sources(job: Job) -> list[dict[str, object]]:
    from model.training.data.importers.readers import files_of

    if job.format.rows is not None and not job.source.is_file():
        return [{"file": job.source.name}]
    sources: list[dict[str, object]] = []
    for file in [job.source] if job.source.is_file() else files_of(job.source):
        size = file.stat().st_size
        with open(file, "rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest() if size <= _HASHED else None
        name = file.name if file == job.source else str(file.relative_to(job.source))
        sources.append({"file": name, "bytes": size, "sha256": digest})
    return sources


def print_report(report: Report, json_: bool, looked_in: Path | None = None) -> None:
    """Print counts and findings. `looked_in`: the folder that the media were looked for in."""
    from pipeline.commands import output

    if json_:
        output.print_json(report.as_json())
        return
    output.say(
        f"rows: {report.rows:,} in = {report.rows_out:,} out + {report.rows_rejected:,} rejected; "
        f"records: {report.records:,} written, {report.records_rejected:,} rejected"
    )
    rows = [
        (kind, reason, found.count, found.example)
        for kind, findings in (
            ("rejected", report.rejected),
            ("note", report.notes),
            ("not in the form", report.refused),
        )
        for reason, found in sorted(findings.counted.items(), key=lambda item: -item[1].count)
    ]
    if rows:
        output.print_rows("findings", ("what", "reason", "count", "example"), rows)
    media = ", ".join(f"{count:,} {state}" for state, count in report.media.items() if count) or "none"
    output.out.print(f"media: {media}", markup=False)
    if looked_in and report.media["missing"] and not report.media["present"]:
        output.say(
            f"not one medium is there: the first was looked for at {looked_in / report.first_missing}; "
            "give --media the folder that this path is relative to"
        )
    if report.limited:
        output.say("--limit ended the import: more rows are there")


def print_formats(json_: bool) -> None:
    """Print the formats, with their data sets and licences."""
    from model.training.data.importers.registry import all_formats
    from pipeline.commands import output

    formats = all_formats().values()
    if json_:
        listed = [
            {
                "format": each.name,
                "about": each.about,
                "options": dict(each.options),
                "datasets": {profile.name: profile.licence.model_dump() for profile in each.profiles},
            }
            for each in formats
        ]
        output.print_json(listed)
        return
    rows = []
    for each in formats:
        sets = ", ".join(f"{profile.name} ({profile.licence.name})" for profile in each.profiles)
        rows.append((each.name, f"{each.about}. {sets}" if sets else each.about))
    output.print_rows("formats", ("format", "what it reads, and data sets with their licences"), rows)
