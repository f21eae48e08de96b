"""The report of an import: what came in, what went out, what was rejected and why. It becomes `import.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MOST = 200  # different reasons; more are counted together
_OTHERS = "other reasons"
_NUMBER = re.compile(r"-?\d[\d.,]*")


@dataclass
class Counted:
    """How often something was found, and one example of it."""

    count: int
    example: str


@dataclass
class Findings:
    """Counts of reasons or notes. What differs in numbers or behind the colon only is one reason."""

    counted: dict[str, Counted] = field(default_factory=dict)

    def add(self, text: str, example: str, count: int = 1) -> None:
        """Count a text; the first example of it is kept."""
        kind = _NUMBER.sub("N", text.partition(": ")[0])[:100]
        if kind not in self.counted and len(self.counted) >= _MOST:
            kind = _OTHERS
        known = self.counted.setdefault(kind, Counted(0, example))
        known.count += count

    @property
    def total(self) -> int:
        return sum(found.count for found in self.counted.values())

    def as_json(self) -> dict[str, Any]:
        """Return the counts, the most frequent first."""
        ordered = sorted(self.counted.items(), key=lambda item: -item[1].count)
        return {kind: {"count": found.count, "example": found.example} for kind, found in ordered}


@dataclass
class Report:
    """All that an import counts. Rows in are rows out and rows rejected; records made are records written and rejected.

    Attributes:
        rows: Rows of the source that were read.
        rows_out: Rows of which at least one record was written.
        rows_rejected: Rows of which no record was written.
        records: Records that were written.
        records_rejected: Records that a check rejected. A row that gives no record at all counts in its row only.
        rejected: Why rows and records were rejected.
        notes: What was found, and made no record a bad one.
        refused: Why records are not in the form of `--as`.
        media: Media by state: present, missing, not looked at.
        first_missing: Path of the first medium that is missing.
        limited: Whether `--limit` ended the import.
        about: What else `import.json` says: provenance, languages, lengths.
    """

    rows: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    records: int = 0
    records_rejected: int = 0
    rejected: Findings = field(default_factory=Findings)
    notes: Findings = field(default_factory=Findings)
    refused: Findings = field(default_factory=Findings)
    media: dict[str, int] = field(default_factory=lambda: {"present": 0, "missing": 0, "not looked at": 0})
    first_missing: str = ""
    limited: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was rejected, refused or noteworthy."""
        return not (self.rejected.counted or self.notes.counted or self.refused.counted)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `import.json`."""
        return {
            "rows": {"in": self.rows, "out": self.rows_out, "rejected": self.rows_rejected, "limited": self.limited},
            "records": {"written": self.records, "rejected": self.records_rejected},
            "rejected": self.rejected.as_json(),
            "notes": self.notes.as_json(),
            "refused": self.refused.as_json(),
            "media": self.media,
            **self.about,
        }
