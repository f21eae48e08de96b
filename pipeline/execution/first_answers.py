"""Check the first answers of a job: if all of them are the same error, the server is at fault, not the images."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from itertools import count, takewhile

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError
from manifests.journal import Journal

_COMPARED = 64  # words of an error
_ALIKE = 0.5  # share of the words that two texts of one error have in common
_STATUS = re.compile(r"server: \d{3}\b")
_WORD = re.compile("[\u3040-\u9fff]|[^\\W\u3040-\u9fff]+")  # Chinese and Japanese have no spaces: a character is a word


class FirstAnswers:
    """The first answers that one actor of a journaled stage gets. Its methods may be called from any thread.

    Images count in the order of their requests, because a refusal comes back sooner than a caption. As long as every
    answer is the same error (`_ErrorKinds`), none is written to a journal. A caption or a different error shows that
    the server works. A different error that can be retried (`retry`) does not show it: one more image is examined in
    its place.
    """

    def __init__(self, stage: str, most: int) -> None:
        """Start a job.

        Args:
            stage: Name of the stage, for the error message.
            most: Number of first images with the same error that ends the job; 0: errors never end it.
        """
        self._stage, self._most = stage, most
        self._changed = threading.Condition()
        self._started = self._blocks = 0
        self._kinds = _ErrorKinds()
        self._errors: dict[int, int | None] = {}
        self._permanent: set[int] = set()
        self._unsaved: list[tuple[Journal, pa.Table]] = []
        self._decided = not most
        self._stopped = ""

    @contextmanager
    def running_block(self) -> Iterator[None]:
        """Count a block as running while its images are sent to the model."""
        with self._changed:
            self._blocks += 1
        try:
            yield
        finally:
            with self._changed:
                self._blocks -= 1
                self._changed.notify_all()

    def take_numbers(self, images: int) -> int:
        """Number the next `images` images of the job; return the number of the first one.

        Raises:
            UserError: The job must end.
        """
        with self._changed:
            self.raise_if_stopped()
            self._started += images
            return self._started - images

    def raise_if_stopped(self) -> None:
        """Check that the job continues.

        Raises:
            UserError: The job must end.
        """
        if self._stopped:
            raise UserError(self._stopped)

    def save(self, number: int, rows: pa.Table, journal: Journal) -> None:
        """Append answers to their journal, or keep them until it is decided whether the server works.

        Args:
            number: Number of the first row, from `take_numbers`.
            rows: The answers, as rows of the stage's table.
            journal: Journal of the part that the rows belong to.

        Raises:
            UserError: The job must end, and all of the rows are errors.
        """
        with self._changed:
            if not self._decided and not self._stopped:
                self._evaluate(number, rows)
            if rows["error"].null_count == 0:
                self.raise_if_stopped()
            self._unsaved.append((journal, rows))
            if self._decided or self._stopped:
                for owner, answers in self._unsaved:
                    owner.append(answers)
                self._unsaved.clear()
            self._changed.notify_all()

    def resolve_block(self, answers: Sequence[pa.Table]) -> list[pa.Table]:
        """Return the answers of a finished block as they are to be stored.

        If all blocks end before it is decided whether the server works, failed rows are marked to be retried.

        Raises:
            UserError: The job must end.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._decided or self._stopped or not self._blocks)
            if self._decided:
                return list(answers)
            self.raise_if_stopped()
            self._unsaved.clear()
            return [_marked_for_retry(rows) for rows in answers]

    def _evaluate(self, number: int, rows: pa.Table) -> None:
        errors = [None if error is None else self._kinds.number_of(error) for error in rows["error"].to_pylist()]
        retries = rows["retry"].to_pylist()
        failed = zip(errors, retries, strict=True)
        self._permanent |= {kind for kind, retry in failed if kind is not None and not retry}
        enough = 4 * self._most
        self._errors |= {n: error for n, error in enumerate(errors, number) if n < enough}
        first = [self._errors[n] for n in takewhile(self._errors.__contains__, count())]
        if None in errors or len(self._permanent) > 1 or len(first) == enough:
            self._decided = True
            return
        for kind, times in Counter(first).items():
            if times >= self._most and kind is not None:
                error = self._kinds.examples[kind]
                self._unsaved.clear()
                self._stopped = (
                    f"{self._stage}: the first {self._most} images in a row without an answer, all of them: {error}; "
                    "none is stored: fix the server (or the stage's settings) and run again; "
                    "if the images are at fault, give the stage `resources: {first_errors: 0}`"
                )


class _ErrorKinds:
    """Numbers the kinds of errors. Two errors are of one kind if their statuses are equal and their texts are alike.

    Texts differ in numbers, ids and names of images, and ids may have no digit. So half of the words must be equal,
    where all words with digits count as equal. Taking two errors for one ends a job, with a remedy in the message;
    taking one for two would store it for every image.

    Attributes:
        examples: The first error of each kind.
    """

    def __init__(self) -> None:
        self.examples: list[str] = []
        self._compared: list[tuple[str, list[str]]] = []

    def number_of(self, error: str) -> int:
        """Return the number of an error's kind."""
        status = match[0] if (match := _STATUS.match(error)) else ""
        words = _WORD.findall(error.removeprefix(status))[:_COMPARED]
        words = ["0" if any(map(str.isdigit, word)) else word.lower() for word in words]
        for number, (other, theirs) in enumerate(self._compared):
            if status == other and SequenceMatcher(None, words, theirs, autojunk=False).ratio() >= _ALIKE:
                return number
        self.examples.append(error)
        self._compared.append((status, words))
        return len(self.examples) - 1


def _marked_for_retry(rows: pa.Table) -> pa.Table:
    failed = pc.is_valid(rows["error"])
    return rows.set_column(rows.column_names.index("retry"), "retry", failed)
