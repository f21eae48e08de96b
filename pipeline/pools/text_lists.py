"""Read foreign lists in text form: CSV, TSV, JSON Lines and plain text. They may be packed by gzip or zstd.

Rows come one after the other, in batches of bounded size, so that no list fills the memory. A row that cannot be used
is a `BadRow` that names its lines. It keeps its number, and the rest is read.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from core.errors import BadSampleError
from core.parquet import text_limit
from pipeline.pools.bounded_lines import BoundedLines
from pipeline.pools.tables import ROWS_AT_ONCE
from pipeline.pools.texts import decoded, octets

FORMS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".txt": "plain text"}
"""The forms of lists by the ending of the file, to which `PACKINGS` may add an ending of their own."""

PACKINGS = (".gz", ".zst")

LISTS = tuple(f"{ending}{packing}" for ending in FORMS for packing in ("", *PACKINGS))
"""The endings of lists in text form."""

BAD_LIST = (ValueError, OSError, pa.ArrowException)
"""Exceptions that reading a damaged list raises."""

_BATCH = 4 << 20  # characters of the rows that are held at once; as Python objects they take up to 40 times as much
_COLUMNS = 10_000
_DELIMITERS = ",;\t|"
_JOINED = "a quote joins lines that are rows by themselves; is a quote not closed, or not doubled?"
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://[^\s\x22]+\s*")


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used; `error` is one line that names its lines in the file."""

    error: str


ListRow = dict[str, Any] | BadRow
"""The values of a row by column. Of CSV, TSV and plain text they are texts, or None for an empty cell. A text has lone
surrogates for bytes that are not UTF-8 (`surrogateescape`)."""


def form_of(path: str) -> str | None:
    """Return the form of a list in text form by the name of its file; None: it may be a Parquet file."""
    name = path.lower()
    for packing in PACKINGS:
        name = name.removesuffix(packing)
    return next((form for ending, form in FORMS.items() if name.endswith(ending)), None)


class TextList:
    """An open foreign list.

    Attributes:
        form: A value of `FORMS`.
        names: The columns: those of the header, and for JSON Lines the keys of the rows that were read so far.
        encoding: The encoding of the whole list, if a byte-order mark says another than UTF-8; else None.
        most_text: Limit for all texts of the list together, in bytes, for callers that keep them in memory.
    """

    def __init__(self, file: BinaryIO | pa.NativeFile, form: str, length: int) -> None:
        """Begin to read, with the header if the form has one.

        Args:
            file: The file, at its beginning.
            form: A value of `FORMS`.
            length: Length of the file in bytes.

        Raises:
            BadSampleError: The header has too many columns.
            ValueError, OSError, pa.ArrowException: The file or the disk is damaged.
        """
        self.form, self.most_text = form, text_limit(length)
        self._lines = BoundedLines(file, self.most_text, "\n" if form == "JSON Lines" else "")
        self.encoding = self._lines.encoding
        self.names: list[str] = ["url"] if form == "plain text" else []
        self._keys = set[str]()
        if form in ("CSV", "TSV"):
            self._rows = self._csv_rows(self._delimiter_after_header())
        else:
            self._rows = self._json_rows() if form == "JSON Lines" else self._text_rows()

    def batches(self) -> Iterator[list[ListRow]]:
        """Yield all rows in order, in lists of at most `ROWS_AT_ONCE` rows. Blank lines are no rows.

        Raises:
            BombError: The list unpacks to more than `most_text` bytes.
            BadSampleError: The rest of the list cannot be read. The rows before it were yielded.
            ValueError, OSError, pa.ArrowException: The file or the disk is damaged. The same holds.
        """
        rows: list[ListRow] = []
        held = 0
        try:
            for row in self._rows:
                rows.append(row)
                held += self._lines.taken
                if len(rows) == ROWS_AT_ONCE or held >= _BATCH:
                    yield rows
                    rows, held = [], 0
        except BAD_LIST:
            yield rows
            raise
        yield rows

    def _delimiter_after_header(self) -> str:
        """Read the header; return the delimiter: that of the four that the header has most often."""
        line = next((line for line in self._lines if line.strip()), "")
        if "\0" in line:
            raise BadSampleError("the header has zero bytes, as UTF-16 has: convert the list to UTF-8")
        delimiter = "\t" if self.form == "TSV" else max(_DELIMITERS, key=line.count)
        try:
            names = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error as error:
            raise BadSampleError(f"the header cannot be read: {error}") from error
        if len(names) > _COLUMNS:
            raise BadSampleError(f"the header has {len(names):,} columns, more than {_COLUMNS:,}")
        self.names = [" ".join(decoded(octets(name))[0].split()) for name in names]
        self._lines.taken = 0
        return delimiter

    def _csv_rows(self, delimiter: str) -> Iterator[ListRow]:
        lines = self._lines
        held: list[str] = []  # the lines of a row
        reader = csv.reader(
            _holding(lines, held), delimiter=delimiter, strict=True
        )  # else a stray quote joins rows without a word
        while not lines.ended:
            first, lines.taken, lines.too_long = lines.number + 1, 0, False
            held.clear()
            try:
                cells = next(reader, None)
            except csv.Error as error:  # it goes on with the next line
                yield self._bad(first, self._flaw(error))
                continue
            if lines.too_long:
                yield self._bad(first, "too long")
            elif cells and len(cells) != len(self.names):
                yield self._bad(first, f"{len(cells):,} cells, and the header has {len(self.names):,}")
            elif cells and len(held) > 1 and _joins_rows(held, cells, delimiter):
                yield self._bad(first, _JOINED)
            elif cells:
                yield {name: cell or None for name, cell in zip(self.names, cells, strict=True)}

    def _flaw(self, error: csv.Error) -> str:
        """Say what is wrong with a row of CSV; the reader has three errors here."""
        if self._lines.ended:  # it looked for the end of a row and found that of the file
            return "a quote is not closed"
        if "field limit" in str(error):
            return f"a cell has more than {csv.field_size_limit():,} characters; is a quote not closed?"
        return "text after a closing quote; is a quote not closed, or not doubled?"

    def _json_rows(self) -> Iterator[ListRow]:
        for line in self._lines:
            if self._lines.too_long:
                yield self._bad_line("too long")
            elif line.strip():
                yield self._json_row(line)
            self._lines.taken = 0

    def _json_row(self, line: str) -> ListRow:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            return self._bad_line(f"not JSON: {error.msg} (character {error.pos + 1:,})")
        except (ValueError, RecursionError):
            return self._bad_line("not usable JSON: a number of thousands of digits, or thousands of nested lists")
        if not isinstance(row, dict):
            return self._bad_line("no JSON object")
        self.names += [name for name in row if name not in self._keys]
        self._keys |= row.keys()
        if len(self.names) > _COLUMNS:
            raise BadSampleError(f"its rows have more than {_COLUMNS:,} different keys")
        return row

    def _text_rows(self) -> Iterator[ListRow]:
        for line in self._lines:
            if self._lines.too_long:
                yield self._bad_line("too long")
            elif url := line.strip():
                yield {"url": url}
            self._lines.taken = 0

    def _bad(self, first: int, why: str) -> BadRow:
        last = self._lines.number
        return BadRow(f"bad row: {f'line {first:,}' if last == first else f'lines {first:,} to {last:,}'}: {why}")

    def _bad_line(self, why: str) -> BadRow:
        self._lines.too_long = False
        return self._bad(self._lines.number, why)


def _holding(lines: Iterator[str], held: list[str]) -> Iterator[str]:
    for line in lines:
        held.append(line)
        yield line


def _joins_rows(lines: Sequence[str], row: Sequence[str], delimiter: str) -> bool:
    """Return whether some of a row's lines are rows by themselves: they have another URL in the place of the row's own.

    A text of several lines may have delimiters and URLs, and the row's URL may stand in its first or last line.
    """
    try:
        parsed = [lines[0].split(delimiter), *(next(csv.reader([line], delimiter=delimiter), []) for line in lines[1:])]
    except csv.Error:
        return False
    urls = [place for place, cell in enumerate(row) if _URL.match(cell)]
    rows = [cells for cells in parsed if len(cells) == len(row)]
    return any(_URL.fullmatch(cells[n]) and cells[n].strip() != row[n].strip() for cells in rows for n in urls)
