"""The first answers that a job gets: if all of them are one error, what answers is at fault, and not the images."""

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

_COMPARED = 100  # characters of an error; servers and we cut longer ones, and numbers move the cut


class FirstAnswers:
    """Of one actor of a journaled stage; its methods may be called from any thread.

    Images count in the order in which they are asked about: a refusal comes back sooner than a caption. As long as
    every answer is the same error, none goes into a journal. One that differs settles that what answers is well, but
    for a failure that passes (`retry`): in its place one more image is looked at.
    """

    def __init__(self, stage: str, most: int) -> None:
        """Begin a job.

        Args:
            stage: Its name, for the error.
            most: So many first images with one error end the job; 0: none do.
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
        """While the images of a block are asked about."""
        with self._changed:
            self._blocks += 1
        try:
            yield
        finally:
            with self._changed:
                self._blocks -= 1
                self._changed.notify_all()

    def ask(self, images: int) -> int:
        """The number of the first of so many images that are asked about next.

        Raises:
            UserError: The job is to end.
        """
        with self._changed:
            self.check()
            self._started += images
            return self._started - images

    def check(self) -> None:
        """See that images are still to be asked about.

        Raises:
            UserError: The job is to end.
        """
        if self._stopped:
            raise UserError(self._stopped)

    def write_down(self, number: int, rows: pa.Table, journal: Journal) -> None:
        """Put answers into their journal, or hold them until it is settled that they are worth it.

        Args:
            number: Of the first row, from `ask`.
            rows: Of the stage's table.
            journal: Of their part.

        Raises:
            UserError: The job is to end, and the rows hold nothing but errors.
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
        """All answers of a block that has ended, as they are to be stored.

        Where the job has ended before it was settled, the next one is to try all of them again.

        Raises:
            UserError: The job is to end.
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
    """What an error says, whatever numbers and names with digits are in it; the first two words hold the status."""
    *status, words = error.split(" ", 2)
    return " ".join([*status, re.sub(r"\S*\d\S*", "0", words)])[:_COMPARED]


def _to_be_tried_again(rows: pa.Table) -> pa.Table:
    failed = pc.is_valid(rows["error"])
    return rows.set_column(rows.column_names.index("retry"), "retry", failed)
