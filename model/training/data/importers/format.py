"""The contract of an importer: a format reads rows of a published data set and drafts records of them.

The import itself adds to a draft what is the same for all formats: id, source, licence, the state of the media; and it
checks, counts and writes the record, or rejects it with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from core.errors import BadSampleError, UserError
from core.records import Choices, Licence, Medium, Synthesis, Turn

T = TypeVar("T")

UNKNOWN = Licence()

Options = Mapping[str, str]
"""What the user gives as `--set key=value`: only keys that the format declares."""


@dataclass(frozen=True)
class Unreadable:
    """In place of a row's value: what stood there, and why it is no value."""

    text: str
    reason: str


@dataclass(frozen=True)
class Row:
    """One row of a source.

    Attributes:
        value: What was read: usually a dict. It comes from strangers: anything may be missing or of another type.
        file: Name of the file, relative to the source.
        line: Place in the file, counted from 1: line, entry, row.
        key: Its key, in an object of id → value; the name of a tar's sample.
    """

    value: Any
    file: str = ""
    line: int = 0
    key: str = ""

    @property
    def entry(self) -> Mapping[str, Any]:
        """The value, if it is a JSON object.

        Raises:
            BadSampleError: It is something else.
        """
        if not isinstance(self.value, Mapping):
            raise BadSampleError(f"not an object: {type(self.value).__name__}")
        return self.value


@dataclass(frozen=True)
class Draft:
    """What a format says of one record.

    Attributes:
        turns: The conversation.
        media: Its media, as the original names them. Their files are looked for later.
        original_id: The data set's own id, of any type.
        subset: Subset, if the row names it; split and url likewise.
        licence: Licence of this record; None: that of the data set.
        transforms: What was done to the original.
        notes: What was guessed or repaired, as texts that are counted in the report: keep them few and the same.
        embedded: Bytes of images that the row holds itself, by the key of their medium.
    """

    turns: Sequence[Turn]
    media: Sequence[Medium] = ()
    original_id: object = ""
    subset: str = ""
    split: str = ""
    url: str = ""
    licence: Licence | None = None
    choices: Choices | None = None
    references: Sequence[str] = ()
    task: str = ""
    aspect: str = ""
    synth: Synthesis | None = None
    transforms: Sequence[str] = ()
    notes: Sequence[str] = ()
    embedded: Mapping[str, bytes] = field(default_factory=dict)


ROW_ERRORS = (
    BadSampleError,
    ValidationError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ValueError,
    RecursionError,
)
"""What an importer may raise for a row of strangers: one row never ends an import. The type of an unexpected error is
part of the reason, so a mistake in an importer shows in the report. A UserError, a ValueError too, is about the command
and ends it."""


def drafts_of(pieces: Iterable[T], make: Callable[[T], Draft]) -> Iterator[Draft | BadSampleError]:
    """Yield a draft for each piece of a row: a question, a span. One that cannot be made is an error in its place."""
    for piece in pieces:
        try:
            yield make(piece)
        except UserError:
            raise
        except ROW_ERRORS as error:
            yield BadSampleError(reason_of(error))


def reason_of(error: Exception) -> str:
    """Return why a row or record is rejected, as one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        text = first["msg"].removeprefix("Value error, ")
        return text if first["type"] == "value_error" else f"{text}: {'.'.join(map(str, first['loc']))}"
    text = " ".join(str(error).split())[:500] or "no reason was given"
    return text if isinstance(error, BadSampleError) else f"{type(error).__name__}: {text}"


@dataclass(frozen=True)
class Profile:
    """A published data set of a format: its name for `--dataset`, and its licence."""

    name: str
    licence: Licence = UNKNOWN


@dataclass(frozen=True)
class Format:
    """A published form.

    Attributes:
        name: Name on the command line.
        about: One line for `vl3syn import --list`.
        read: The importer: the drafts of one row. A row that it cannot use raises a BadSampleError of the form
            `what is wrong: details`; the part before the colon is counted. Where a row gives several records, a
            BadSampleError in place of a draft rejects that one only (`drafts_of`).
        fits: Whether a row looks like this format. Of those that a row fits, `vl3syn import auto` takes the one that
            can read most rows. It must not raise for a mapping. Not asked where `rows` is set.
        profiles: Data sets that are published in it. With exactly one, that is the default.
        options: Keys of `--set`, and what they mean.
        inside: Keys of a JSON object whose value holds the rows: ("database",) for YouCook2, ("videos",) for Ego4D.
            The first one that the file has counts; without any, the object itself is id → value.
        over: Formats that rows of this one look like, too: `auto` takes this one before them.
        rows: Reads the source instead of `readers.read_rows`: for lines of text, joined files, folders.
        recognises: Whether the names and beginnings of a source's files make it certain that it has this format; for
            formats with `rows`. `auto` takes it before all that rows only fit.
    """

    name: str
    about: str
    read: Callable[[Row, Options], Iterable[Draft | BadSampleError]]
    fits: Callable[[Mapping[str, Any]], bool]
    profiles: Sequence[Profile] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    inside: Sequence[str] = ()
    over: Sequence[str] = ()
    rows: Callable[[Path, Options], Iterator[Row]] | None = None
    recognises: Callable[[Path], bool] | None = None
