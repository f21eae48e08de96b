"""The tables and the picture of docs/evidence.md, out of planted.json: no number is typed by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from turns import markdown

RESULTS = Path(__file__).with_name("planted.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence.md"
PICTURE = DOCUMENT.parent / "images" / "planted.svg"
BEGIN, END = "<!-- written by benchmarks/evidence/planted.py -->\n", "<!-- end -->\n"

_FOUND = ("defect", "rule drops if", "planted", "found", "recall (95 %)")
_DROPPED = (
    "rule drops if",
    "threshold of",
    "rows",
    "dropped",
    "with its defect: precision (95 %)",
    "sound rows dropped",
)
_Z = 1.959964  # of the normal distribution, 95 %


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), 0 to 1; of no trials it is all of that."""
    if not trials:
        return 0.0, 1.0
    share, more = hits / trials, _Z**2 / trials
    middle, half = share + more / 2, _Z * (share * (1 - share) / trials + more / (4 * trials)) ** 0.5
    low, high = ((middle + sign * half) / (1 + more) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def text(results: Mapping[str, Any]) -> str:
    """Return what was measured, when and how, and the tables, as Markdown."""
    counts = results["planted"]
    head = f"{results['date']}, `{results['command']}`, seed {results['sizes']['seed']}; {results['machine']}."
    rows = f"{sum(counts.values()):,} rows: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()) + "."
    found = markdown(_FOUND, list(_found(results)))
    dropped = markdown(_DROPPED, list(map(_dropped, results["rules"])))
    return "\n\n".join([head, rows, found, unfound(results), dropped]) + "\n"


def unfound(results: Mapping[str, Any]) -> str:
    """Return sentences that name what no rule finds, most first, and what no rule is for."""
    has_rule = {kind for kind, _ in _pairs(results)}
    missed = sorted(results["missed"].items(), key=lambda item: (-item[1], item[0]))
    named = [f"{kind} ({count} of {results['planted'][kind]})" for kind, count in missed if count and kind in has_rule]
    alone = [f"{kind} ({count})" for kind, count in missed if kind not in has_rule]
    sentence = f"Found by no rule that is for it: {', '.join(named) or 'nothing'}."
    return f"{sentence} No rule that was judged is for: {', '.join(alone)}." if alone else sentence


def picture(results: Mapping[str, Any]) -> str:
    """Return the recall of each defect and rule with its interval, as SVG; the same for the same results."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    pairs = list(_pairs(results))
    with matplotlib.rc_context({"svg.hashsalt": "planted", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(8, 0.6 + 0.22 * len(pairs)), layout="constrained")
        axes = figure.subplots()
        for number, (kind, rule) in enumerate(pairs):
            hits, trials = rule["found"][kind], rule["planted"][kind]
            low, high = wilson(hits, trials)
            axes.plot([low, high], [number, number], color="#8aa4c8", linewidth=3, solid_capstyle="butt")
            axes.plot([hits / max(trials, 1)], [number], "o", color="#1f4e8c", markersize=4)
        axes.set_yticks(range(len(pairs)), [f"{kind}: {rule['drops']}" for kind, rule in pairs])
        axes.invert_yaxis()
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share of the planted that the rule drops, with 95 % interval")
        axes.grid(axis="x", color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(FigureCanvasSVG(figure))


def written(document: str, results: Mapping[str, Any]) -> str:
    """Return the document with these tables in the place of those that it has.

    Raises:
        ValueError: It has no place for them.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"no {BEGIN.strip()} … {END.strip()}")
    return f"{before}{begin}\n{text(results)}\n{end}{after}"


def write(results: Mapping[str, Any]) -> None:
    """Write the tables into docs/evidence.md, and the picture."""
    DOCUMENT.write_text(written(DOCUMENT.read_text(), results))
    PICTURE.write_text(picture(results))


def stored() -> dict[str, Any]:
    """Return the results that were measured last."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    return results


def _pairs(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each defect with each rule that is for it."""
    rules = results["rules"]
    for kind in dict.fromkeys(kind for rule in rules for kind in rule["planted"]):
        yield from ((kind, rule) for rule in rules if kind in rule["planted"])


def _found(results: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    before = None
    for kind, rule in _pairs(results):
        hits, trials = rule["found"][kind], rule["planted"][kind]
        yield "" if kind == before else kind, f"`{rule['drops']}`", str(trials), str(hits), _share(hits, trials)
        before = kind


def _dropped(rule: Mapping[str, Any]) -> Sequence[str]:
    right, dropped = rule["right"], rule["dropped"]
    return (
        f"`{rule['drops']}`",
        rule["source"],
        f"{rule['rows']:,}",
        str(dropped),
        f"{right}: {_share(right, dropped)}" if dropped else "–",
        f"{rule['sound_dropped']} of {rule['sound']}: {_share(rule['sound_dropped'], rule['sound'])}",
    )


def _share(hits: int, trials: int) -> str:
    if not trials:
        return "–"
    low, high = wilson(hits, trials)
    return f"{hits / trials:.0%} ({low:.0%} to {high:.0%})".replace("%", " %")


def _svg(canvas: Any) -> str:

    target = io.StringIO()
    canvas.print_svg(target, metadata={"Date": None})
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines()) + "\n"
