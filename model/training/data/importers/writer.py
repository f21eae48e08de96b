"""Write what an import makes: records, rejected rows, the records in a trainer's form, the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import BadSampleError
from core.records import Record
from manifests.record_files import Form, RecordWriter
from manifests.renderers import RENDERERS, left_beside

REJECTED, REPORT = "rejected.jsonl", "import.json"


class Writer:
    """Takes the records and rejected rows of one import.

    Attributes:
        folder: Where it writes; None: nowhere, for a dry run.
    """

    def __init__(self, folder: Path | None, form: Form = "jsonl", as_form: str | None = None) -> None:
        """`as_form`: name of a form of `RENDERERS`; its file is `<name>.jsonl`."""
        self.folder = folder
        self.beside: dict[str, int] = {}
        self.rendered = 0
        self._roots: set[str] = set()
        self._render = RENDERERS[as_form] if as_form else None
        self._records = RecordWriter(folder, form) if folder else None
        self._rejected = open(folder / REJECTED, "wb") if folder else None
        self._as = open(folder / f"{as_form}.jsonl", "wb") if folder and as_form else None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._records:
            self._records.__exit__(*error)
        for file in (self._rejected, self._as):
            if file:
                file.close()

    def write(self, record: Record) -> list[str]:
        """Write a record; return why it cannot be said in the trainer's form, if so."""
        if self._records:
            self._records.write(record)
        if self._render is None:
            return []
        try:
            self._check_roots(record)
            rendered = self._render(record)
        except BadSampleError as error:
            return [str(error)]
        self.rendered += 1
        for name in left_beside(record):
            self.beside[name] = self.beside.get(name, 0) + 1
        _write_line(self._as, rendered)
        return []

    def _check_roots(self, record: Record) -> None:
        roots: set[str] = {medium.root for medium in record.media}
        self._roots = self._roots or roots
        if roots - self._roots or len(roots) > 1:
            raise BadSampleError("images that rows held themselves beside files of --media: the form has one folder")

    def reject(self, row: Mapping[str, Any]) -> None:
        """Write a rejected row with its place and reason."""
        _write_line(self._rejected, row)

    @property
    def files(self) -> list[str]:
        """Names of the files of records."""
        return [file.name for file in self._records.files] if self._records else []


def _write_line(file: BinaryIO | None, value: Mapping[str, Any]) -> None:
    if file:
        text = json.dumps(value, ensure_ascii=False)
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")
