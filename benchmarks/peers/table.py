"""The table of docs/benchmarks.md, out of results.json: no number is typed by hand."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import spread
from turns import markdown

RESULTS = Path(__file__).parent / "results.json"
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- written by benchmarks/peers/run.py -->\n", "<!-- end -->\n"
COLUMNS = ("work", "by", "seconds", "× ours", "CPU seconds", "× ours", "peak memory, MiB", "a second")
OURS = "vl3syn"


def text(results: Mapping[str, Any]) -> str:
    """Return what was measured where, when and how, and the table, as Markdown."""
    heads: dict[str, list[str]] = {}
    for work in results["works"]:
        heads.setdefault("{date}, `{command}`, rounds: {rounds}; {machine}".format(**work["measured"]), []).append(
            work["work"]
        )
    named = (f"{head}" if len(heads) == 1 else f"{', '.join(works)}: {head}" for head, works in heads.items())
    how = "\n".join(f"{line}." if len(heads) == 1 else f"- {line}." for line in named)
    lines = [row for work in results["works"] for row in _rows(work)]
    return f"{how}\n\n{markdown(COLUMNS, lines)}\n"


def merged(before: Mapping[str, Any] | None, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the stored results with works that were measured again in their places, and new ones at the end."""
    works = {work["work"]: work for work in [*(before or {"works": []})["works"], *measured]}
    return {"works": list(works.values())}


def written(document: str, results: Mapping[str, Any] | None) -> str:
    """Return the document with this table in the place of the one that it has; None: with none.

    Raises:
        ValueError: It has no place for it.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"no {BEGIN.strip()} … {END.strip()}")
    table = "" if results is None else f"\n{text(results)}\n"
    return f"{before}{begin}{table}{end}{after}"


def stored() -> dict[str, Any] | None:
    """Return the results that were measured last, or None."""
    if not RESULTS.is_file():
        return None
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    return results


def _rows(work: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    ours = next((runs for name, runs in work["runs"].items() if name.startswith(OURS)), None)
    for number, (name, runs) in enumerate(work["runs"].items()):
        seconds, core_seconds, mib = ([run[key] for run in runs] for key in ("seconds", "core_seconds", "mib"))
        rate = work["count"] / statistics.median(seconds)
        yield (
            "" if number else f"{work['work']}: {work['count']:,} {work['unit']}",
            name,
            spread(seconds),
            _against(ours, runs, "seconds"),
            spread(core_seconds),
            _against(ours, runs, "core_seconds"),
            f"{statistics.median(mib):,.0f}",
            f"{rate:,.{0 if rate >= 100 else 1}f} {work['unit']}",
        )


def _against(ours: Sequence[Mapping[str, float]] | None, theirs: Sequence[Mapping[str, float]], key: str) -> str:
    """How many times as much as ours: the median over the rounds. Below 1 they are better."""
    if ours is None or ours is theirs:
        return ""
    return f"{statistics.median(other[key] / own[key] for own, other in zip(ours, theirs, strict=True)):.2f}"
