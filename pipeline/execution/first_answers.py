"""Check the first answers of a job: if all of them are the same error, the server is at fault, not the images."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, takewhile

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError
from manifests.journal import Journal

_COMPARED = 100  # characters of an error; servers and this code truncate longer ones, and numbers shift the cut


class FirstAnswers:
    """The first answers that one actor of a journaled stage gets. Its methods may be called from any thread.

    Images count in the order of their requests, because a refusal comes back sooner than a caption. As long as every
    answer is the same error, none is written to a journal. A caption or a different error shows that the server works.
    A different error that can be retried (`retry`) does not show it: one more image is examined in its place.
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
        self._errors: dict[int, str] = {}
        self._lasting: set[str] = set()
        self._held: list[tuple[Journal, pa.Table]] = []
        self._settled = not most
        self._stopped = ""

    @contextmanager
    def block(self) -> Iterator[None]:
        """Count a block as running while its images are sent to the model."""
        with self._changed:
            self._blocks += 1
        try:
            yield
        finally:
            with self._changed:
                self._blocks -= 1
                self._changed.notify_all()

    def ask(self, images: int) -> int:
        """Number the next `images` images of the job; return the number of the first one.

        Raises:
            UserError: The job must end.
        """
        with self._changed:
            self.check()
            self._started += images
            return self._started - images

    def check(self) -> None:
        """Check that the job continues.

        Raises:
            UserError: The job must end.
        """
        if self._stopped:
            raise UserError(self._stopped)

    def write_down(self, number: int, rows: pa.Table, journal: Journal) -> None:
        """Append answers to their journal, or hold them until it is decided whether the server works.

        Args:
            number: Number of the first row, from `ask`.
            rows: The answers, as rows of the stage's table.
            journal: Journal of the part that the rows belong to.

        Raises:
            UserError: The job must end, and all of the rows are errors.
        """
        with self._changed:
            if not self._settled and not self._stopped:
                self._judge(number, rows)
            if rows["error"].null_count == 0:
                self.check()
            self._held.append((journal, rows))
            if self._settled or self._stopped:
                for owner, held in self._held:
                    owner.append(held)
                self._held.clear()
            self._changed.notify_all()

    def of_block(self, answers: Sequence[pa.Table]) -> list[pa.Table]:
        """Return the answers of a finished block as they are to be stored.

        If all blocks end before it is decided whether the server works, failed rows are marked to be retried.

        Raises:
            UserError: The job must end.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._settled or self._stopped or not self._blocks)
            if self._settled:
                return list(answers)
            self.check()
            self._held.clear()
            return [_to_be_tried_again(rows) for rows in answers]

    def _judge(self, number: int, rows: pa.Table) -> None:
        errors, retries = rows["error"].to_pylist(), rows["retry"].to_pylist()
        self._lasting |= {_kind(error) for error, retry in zip(errors, retries, strict=True) if error and not retry}
        enough = 4 * self._most
        self._errors |= {n: error for n, error in enumerate(errors, number) if n < enough}
        first = [self._errors[n] for n in takewhile(self._errors.__contains__, count())]
        if None in errors or len(self._lasting) > 1 or len(first) == enough:
            self._settled = True
            return
        for kind, times in Counter(map(_kind, first)).items():
            if times >= self._most:
                error = next(error for error in first if _kind(error) == kind)
                self._held.clear()
                self._stopped = (
                    f"{self._stage}: the first {self._most} images in a row without an answer, all of them: {error}; "
                    "none is stored: mend the server (or the stage's settings) and run again; "
                    "if the images are at fault, give the stage `resources: {first_errors: 0}`"
                )


def _kind(error: str) -> str:
    """Return an error with `0` for each word with digits after the first two words, which hold the status."""
    *status, words = error.split(" ", 2)
    return " ".join([*status, re.sub(r"\S*\d\S*", "0", words)])[:_COMPARED]


def _to_be_tried_again(rows: pa.Table) -> pa.Table:
    failed = pc.is_valid(rows["error"])
    return rows.set_column(rows.column_names.index("retry"), "retry", failed)
