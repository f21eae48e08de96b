"""Charts as SVG inside of a page, drawn by matplotlib. Their colours are the variables of `templates/style.css`."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.reporting.page import missing

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    name: f"#0{number}0a0b"
    for number, name in enumerate(("ink", "quiet", "line", "grid", "kept", "dropped", "error", "pending"), start=1)
}
"""A colour that stands for each variable until the drawing is done."""

_CLEANED = (
    (re.compile(r"<style.*?</style>|<metadata>.*?</metadata>", re.DOTALL), ""),  # rules for the whole page, addresses
    (re.compile(r' id="[\w.]+_\d+"'), ""),  # the same in every drawing; nothing refers to them
    (re.compile(r"font-family: [^;\"]*;? ?"), ""),  # the page's
    (re.compile(r"\s*\n\s*"), " "),
)
"""What of matplotlib's SVG is replaced inside of a page."""

_PLACES = re.compile(r' (?:d|x|y|transform)="[^"]*"')
_DECIMALS = re.compile(r"(\.\d)\d+")
"""Attributes with positions, and digits of them that nobody sees."""

_BINS = 48
_LARGEST = 1e300  # larger values are drawn there: an axis that is longer than the largest number cannot be drawn
_SMALLEST_RANGE = 1e-9  # of values, by their size: a smaller one is that of rounding, and has no room for bins
_LOG_RATIO = 20.0  # largest value by median: above it, equal steps would show one bar
_FONT = 11.0  # points; a chart is at most 1.5 times as wide on a screen as its drawing


def histogram(name: str, label: str, passed: np.ndarray, dropped: np.ndarray, edge: float | None, rule: str) -> Markup:
    """Return the histogram of a score, with the rule drawn in.

    Args:
        name: Distinguishes the drawing from others of the page.
        label: Text for readers that see no picture.
        passed, dropped: Finite values; at least one.
        edge: Where the rule cuts; None: nowhere.
        rule: The rule, as text beside its line.
    """
    passed, dropped = (np.clip(values, -_LARGEST, _LARGEST) for values in (passed, dropped))
    values = np.concatenate([passed, dropped])
    edges, log = _edges(values)
    figure, axes = _canvas(4.6, 2.1)
    low = _rows_per_bin(passed, edges, log)
    high = low + _rows_per_bin(dropped, edges, log)
    axes.stairs(low, edges, fill=True, color=_COLOURS["kept"], linewidth=0)
    axes.stairs(high, edges, baseline=low, fill=True, color=_COLOURS["dropped"], linewidth=0)
    axes.set_ylim(0, max(1, high.max()) * 1.18)
    if log:
        axes.set_xscale("log")
    if edge is not None:
        _rule_line(axes, edge, rule, edges, log)
    _counts(axes.yaxis)
    if not log:
        axes.locator_params(axis="x", nbins=6)
    if abs(edges[-1]) >= 10_000:
        _counts(axes.xaxis)
    return _svg(figure, name, label)


def sizes(name: str, label: str, reached: np.ndarray, kept: np.ndarray, noun: str) -> Markup:
    """Return the sizes of groups before and after the rules, largest first, on a logarithmic axis.

    Args:
        name: Distinguishes the drawing from others of the page.
        label: Text for readers that see no picture.
        reached, kept: Rows per group; each is sorted here.
        noun: What a row is (`Pool.noun`).
    """
    figure, axes = _canvas(4.6, 2.5)
    for rows, colour, what in ((reached, "dropped", "before"), (kept, "kept", "after")):
        ordered = np.sort(rows[rows > 0])[::-1]
        if len(ordered):
            at = _thinned(len(ordered))
            axes.plot(at + 1, ordered[at], color=_COLOURS[colour], linewidth=2, drawstyle="steps-mid", marker="o",
                      markersize=3.5 if len(ordered) < 60 else 0)  # fmt: skip
            _write(axes, what, (at[-1] + 1, ordered[-1]), "data", (6, 0), colour=colour, height="center")
    axes.set_yscale("log", subs=())
    axes.set_ylim(bottom=0.8)
    axes.margins(x=0.02)
    if len(reached) > 500:
        axes.set_xscale("log")
    axes.set_xlabel("groups, largest first", color=_COLOURS["quiet"], fontsize=_FONT)
    axes.set_ylabel(f"{noun}s", color=_COLOURS["quiet"], fontsize=_FONT)
    _counts(axes.yaxis)
    _counts(axes.xaxis)
    return _svg(figure, name, label)


def _edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the edges of a histogram's bins, and whether they grow by a factor."""
    low, high = float(values.min()), float(values.max())
    rounding = _SMALLEST_RANGE * max(abs(low), abs(high))
    if high - low <= rounding:
        margin = max(0.5, rounding)
        return np.array([low - margin, high + margin]), False
    if np.array_equal(values, np.round(values)) and high - low < _BINS:
        return np.arange(low - 0.5, high + 1), False
    if low > 0 and high / max(float(np.median(values)), low) > _LOG_RATIO:
        return np.geomspace(low, high, _BINS + 1), True
    return np.linspace(low, high, _BINS + 1), False


def _rows_per_bin(values: np.ndarray, edges: np.ndarray, log: bool) -> np.ndarray:
    """Count values per bin. numpy need not sort them if it knows that the bins are of equal width."""
    begin, end = _on_axis([edges[0], edges[-1]], log)
    placed = np.clip(np.log(values), begin, end) if log else values  # rounding must not put one outside
    counts: np.ndarray = np.histogram(placed, len(edges) - 1, (begin, end))[0]
    return counts


def _rule_line(axes: Axes, edge: float, rule: str, edges: np.ndarray, log: bool) -> None:
    """Draw the threshold. If it is so far from the values that they would vanish, draw an arrow at its side."""
    low, high, at = _on_axis([edges[0], edges[-1], edge], log)
    if at < 2 * low - high:
        _write(axes, f"← {rule}", (0.01, 1), "axes fraction")
    elif at > 2 * high - low:
        _write(axes, f"{rule} →", (0.99, 1), "axes fraction", side="right")
    else:
        axes.axvline(edge, color=_COLOURS["ink"], linewidth=1.5, linestyle=(0, (4, 2)))
        left, right = _on_axis(axes.get_xlim(), log)
        side = "right" if at > (left + right) / 2 else "left"
        _write(axes, rule, (edge, axes.get_ylim()[1]), "data", (-5 if side == "right" else 5, 0), side)


def _on_axis(values: Sequence[float], log: bool) -> list[float]:
    """Return where values lie along an axis."""
    return [(math.log(value) if value > 0 else -math.inf) if log else value for value in values]


def _write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    system: str,
    offset: tuple[float, float] = (0, 0),
    side: str = "left",
    colour: str = "ink",
    height: str = "top",
) -> None:
    """Write a text, as it is, beside a point."""
    axes.annotate(
        text,
        at,
        offset,
        xycoords=system,
        textcoords="offset points",
        ha=side,
        va=height,
        color=_COLOURS[colour],
        fontsize=_FONT,
        parse_math=False,
    )


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches, with one empty panel."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("matplotlib") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_COLOURS["line"])
    axes.tick_params(colors=_COLOURS["quiet"], labelsize=_FONT, length=3, which="both")
    axes.tick_params(axis="y", length=0, which="both")
    axes.grid(axis="y", color=_COLOURS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _counts(axis: Any) -> None:
    """Let an axis count rows: whole numbers, `1.2k`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(4, integer=True))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """Format a count in a few characters: `950`, `1.2k`, `35M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _thinned(count: int, most: int = 400) -> np.ndarray:
    """Return at most about `most` positions from 0 to count - 1, dense at the begin."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.geomspace(1, count, most).round().astype(int)) - 1


def _svg(figure: Figure, name: str, label: str) -> Markup:
    """Return a drawing as SVG for the inside of a page, with the page's fonts and colours."""
    import matplotlib
    from markupsafe import Markup, escape

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2]
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    for pattern, replacement in _CLEANED:
        inside = pattern.sub(replacement, inside)
    inside = _PLACES.sub(lambda attribute: _DECIMALS.sub(r"\1", attribute[0]), inside)
    for variable, colour in _COLOURS.items():
        inside = inside.replace(colour, f"var(--{variable})")
    opening = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{opening}{inside.strip()}</svg>")
