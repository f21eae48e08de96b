"""Note whether a run's index is complete: while shards are read, the file `unfinished` lies beside its parts.

Its content says whether the index was complete before. Without the file, an index with any parts counts as complete, as
in runs of earlier versions.
"""

from __future__ import annotations

from core.errors import UserError
from manifests.run import Run
from manifests.tables import Table

NOTE = "unfinished"
_NEVER_COMPLETE, _COMPLETE_BEFORE = b"the first time", b"more"


def begin(index: Table) -> None:
    """Note that the index is incomplete. Call it before shards are read; a killed job leaves the note."""
    if not index.folder.exists(NOTE):
        index.folder.write(NOTE, _COMPLETE_BEFORE if index.parts() else _NEVER_COMPLETE)


def end(index: Table) -> None:
    """Delete the note: all shards are stored."""
    index.folder.delete(NOTE)


def refuse_unfinished(run: Run) -> None:
    """Refuse to compute from an index that was never complete.

    Raises:
        UserError: Nothing is stored yet, or the first indexing was cut off or is still running.
    """
    if not run.index.parts() or _note(run) == _NEVER_COMPLETE:
        raise UserError(f"{run.url}: its index is not finished; `vl3syn index --run {run.url}` goes on with it")


def index_warning(run: Run) -> str | None:
    """Return a warning to show with the numbers of a run whose index lacks shards; None if the index is complete.

    Raises:
        UserError: Nothing is stored yet.
    """
    note = _note(run)
    if not run.index.parts():
        refuse_unfinished(run)
    if note is None:
        return None
    first = note == _NEVER_COMPLETE
    state = "is not finished: this is a part of the pool" if first else "was cut off while images were added"
    return f"{run.url}: its index {state}; `vl3syn index --run {run.url}` goes on with it"


def _note(run: Run) -> bytes | None:
    folder = run.index.folder
    return folder.read(NOTE) if folder.exists(NOTE) else None
