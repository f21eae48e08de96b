"""Whether a run's index is whole: a note lies beside its parts while shards are being read.

Runs of earlier versions have no note; what they have stored counts as their whole index, if it is anything.
"""

from __future__ import annotations

from core.errors import UserError
from manifests.run import Run
from manifests.tables import Table

NOTE = "unfinished"
_FIRST, _MORE = b"the first time", b"more"


def begin(index: Table) -> None:
    """Note, before shards are read, that the index is not whole; whoever is killed leaves the note."""
    if not index.folder.exists(NOTE):
        index.folder.write(NOTE, _MORE if index.parts() else _FIRST)


def end(index: Table) -> None:
    """Note that all shards are stored."""
    index.folder.delete(NOTE)


def refuse_unfinished(run: Run) -> None:
    """Refuse to compute from an index that was never whole.

    Raises:
        UserError: Nothing is stored yet, or the first index was cut off, or is under way.
    """
    if not run.index.parts() or _note(run) == _FIRST:
        raise UserError(f"{run.url}: its index is not finished; `vl3syn index --run {run.url}` goes on with it")


def remark(run: Run) -> str | None:
    """What is to be said with numbers of a run whose index lacks shards; None of one that is whole.

    Raises:
        UserError: Nothing is stored yet.
    """
    note = _note(run)
    if not run.index.parts():
        refuse_unfinished(run)
    if note is None:
        return None
    what = "is not finished: this is a part of the pool" if note == _FIRST else "was cut off while images were added"
    return f"{run.url}: its index {what}; `vl3syn index --run {run.url}` goes on with it"


def _note(run: Run) -> bytes | None:
    folder = run.index.folder
    return folder.read(NOTE) if folder.exists(NOTE) else None
