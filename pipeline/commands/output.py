"""Print the results of commands: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.secrets import redact
from core.text import printable

if TYPE_CHECKING:
    from manifests.explain import Account
    from manifests.funnel import Funnel
    from manifests.run import Run
    from manifests.storage import Folder
    from pipeline.execution.job_result import JobResult

_PIPED = 160  # columns, if the output is not a terminal
_UNLIMITED = 1 << 20  # columns
_NARROW = 20  # columns that are enough for the last column of a table
out = Console(width=None if sys.stdout.isatty() else _PIPED, highlight=False, emoji=False)
err = Console(width=None if sys.stderr.isatty() else _PIPED, stderr=True, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print one line of progress on stderr, without credentials."""
    err.print(printable(redact(text)), markup=False, soft_wrap=True)


def opened(url: str) -> Run:
    """Open a run whose index is finished, and print on stderr what the index lacks.

    Raises:
        UserError: There is no run, or its index is not finished.
    """
    from manifests import open_run
    from manifests.indexing import index_warning, refuse_unfinished

    run = open_run(url)
    refuse_unfinished(run)
    if warning := index_warning(run):
        say(warning)
    return run


@contextmanager
def working_on(url: str, folder: Folder | None = None) -> Iterator[None]:
    """Be the only command that writes to a folder, which `url` names for the user; default: the run at `url`.

    Raises:
        UserError: Another command works on it (`manifests.lease`).
    """
    from manifests.lease import hold
    from manifests.storage import Folder

    with hold(folder or Folder.at(url), url, say):
        yield


def announce(job: JobResult) -> None:
    """Print one line about a finished job on stderr, and what there is to say of its result."""
    what = f"{job.computed:,} rows in {job.seconds:.1f} s" if job.computed else "nothing to compute"
    say(f"{job.stage}: {what}, {job.stored:,} stored before")
    for note in job.notes:
        say(f"{job.stage}: {note}")


def print_json(value: object) -> None:
    text = json.dumps(_finite(value), ensure_ascii=False, indent=2, default=str, allow_nan=False)
    print("\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n")))


def _escaped(line: str) -> str:
    """Write characters that are not printable as `\\uXXXX`."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], to: Console = out) -> None:
    """Print a table with a title. Numbers are right-aligned.

    If the table is too wide, the last column is folded, and if that is not enough, all are: no digit is cut off.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(r[position], int | float | None) for r in rows)
        last = position == len(columns) - 1
        table.add_column(
            Text(printable(name)), justify="right" if numeric else "left", no_wrap=not last, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row))  # Text: strings from the web must not be read as markup
    table.columns[-1].max_width = _NARROW
    too_wide = to.measure(table, options=to.options.update(max_width=_UNLIMITED)).minimum > to.width
    table.columns[-1].max_width = None
    if too_wide:
        for column in table.columns:
            column.no_wrap = False
    to.print(printable(title), style="bold", markup=False, soft_wrap=True)
    to.print(table)


def print_funnel(funnel: Funnel) -> None:
    rows = []
    for s in funnel.stages:
        sorted_reasons = sorted(s.reasons.items(), key=lambda r: -r[1])
        reasons = "\n".join(f"{n:,} {printable(reason)}" for reason, n in sorted_reasons)
        rows.append((s.stage, s.seen, s.kept, s.dropped, s.errors, s.pending, reasons))
    print_rows(funnel.title, ("stage", "seen", "kept", "dropped", "errors", "pending", "reasons"), rows)


def print_jobs(jobs: Sequence[JobResult], noun: str) -> None:
    """Print what was computed, and how fast. `noun`: what a row is (`Pool.noun`)."""
    rows = [
        (
            j.stage,
            j.computed,
            j.errors,
            j.stored,
            round(j.seconds, 2),
            _rate(j.rate),
            "" if j.idle is None else f"{j.idle:.0%}",
        )
        for j in jobs
    ]
    columns = ("stage", "rows", "errors", "stored before", "seconds", f"{noun}s/s", "model idle")
    print_rows("computed now", columns, rows, to=err)


def _rate(rate: float | None) -> float | None:
    return None if rate is None else round(rate) if rate >= 10 else round(rate, 2)


def print_account(account: Account) -> None:
    why = f": {account.drop_reason} (at {account.drop_stage})" if account.drop_stage else ""
    out.print(Text(printable(f"{account.status}{why}")), style="bold")
    image = [(name, printable(str(value))) for name, value in account.image.items() if value is not None]
    print_rows("index", ("column", "value"), image)
    for stage in account.stages:
        rules = ", ".join(f"{name} {_text(threshold)}" for name, threshold in stage.rules.items()) or "no rules"
        # Integers without separators: some are ids, which `explain` accepts.
        pairs = ((name, str(value) if isinstance(value, int) else _text(value)) for name, value in stage.facts.items())
        facts = list(pairs) or [("nothing stored", "")]
        print_rows(f"{stage.stage}: {stage.outcome} ({rules})", ("column", "value"), facts)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by None: JSON has neither."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1e5 else f"{value:,.5g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value), keep="\n")
