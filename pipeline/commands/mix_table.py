"""The result of `vl3syn mix`, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.commands import output
from pipeline.reporting.mix import present_columns

if TYPE_CHECKING:
    from model.training.estimates import Estimate
    from model.training.forecast import SourceForecast, StageForecast

_LEAST = 0.0005  # a half interval below this share of the number is not told
_GAP = 3  # characters between two columns
_SUMMED = ("samples", "pieces", "tokens", "learned", "flops")


@dataclass(frozen=True)
class Prices:
    """What turns tokens and FLOPs into hours.

    Attributes:
        workers: Number of GPUs.
        tokens_per_second: Of one GPU, if it is known.
        tflops: TFLOP/s that one GPU reaches, if it is known.
    """

    workers: int
    tokens_per_second: float | None
    tflops: float | None

    def hours(self, stage: StageForecast) -> dict[str, Estimate]:
        """Return the hours of a stage, by what they are computed from."""
        hours = {}
        if self.tokens_per_second:
            hours["tokens_per_second"] = stage.totals["tokens"] * (1 / (self.tokens_per_second * self.workers * 3600))
        if self.tflops:
            hours["tflops"] = stage.totals["flops"] * (1 / (self.tflops * 1e12 * self.workers * 3600))
        return hours


def mix_json(
    recipe: str, sample: int, stages: Sequence[StageForecast], prices: Prices, page: str | None
) -> dict[str, Any]:
    """Return what `vl3syn mix --json` prints."""
    return {
        "recipe": recipe,
        "sample": sample,
        "confidence": 0.95,
        "exact": all(stage.exact for stage in stages),
        **asdict(prices),
        "stages": [_stage_json(stage, prices) for stage in stages],
        "totals": {name: asdict(value) for name, value in _sums(stages, prices).items()},
        "page": page,
    }


def _stage_json(stage: StageForecast, prices: Prices) -> dict[str, Any]:
    written = asdict(stage)
    for source in written["sources"]:
        source.pop("shown")
    return {**written, "hours": {name: asdict(value) for name, value in prices.hours(stage).items()}}


def _sums(stages: Sequence[StageForecast], prices: Prices) -> dict[str, Estimate]:
    """Return sums over the stages. Their intervals are added, too: stages share their measured samples."""
    by_name = {"steps": [stage.steps for stage in stages]}
    by_name |= {name: [stage.totals[name] for stage in stages] for name in _SUMMED}
    for name in prices.hours(stages[0]):
        by_name[f"hours_by_{name}"] = [prices.hours(stage)[name] for stage in stages]
    return {name: _sum(values) for name, values in by_name.items()}


def _sum(values: Sequence[Estimate]) -> Estimate:
    kind = type(values[0])
    return kind(sum(e.value for e in values), sum(e.low for e in values), sum(e.high for e in values))


def print_mix(stages: Sequence[StageForecast], prices: Prices) -> None:
    """Print a table for each stage, one of all stages, and the reasons for which samples are skipped."""
    for stage in stages:
        _print_sources(stage)
    _print_stages(stages, prices)
    reasons = [
        (stage.name, source.name, f"{reason.samples:,} of {source.measured:,}", reason.example)
        for stage in stages
        for source in stage.sources
        for reason in source.reasons
    ]
    if reasons:
        output.print_rows("skipped, of the measured samples", ("stage", "source", "samples", "example"), reasons)


def _print_sources(stage: StageForecast) -> None:
    """Print the table of a stage. Columns that are 0 throughout are left out."""
    how = "all samples measured: exact" if stage.exact else "± and ≤: 95 % confidence"
    present = present_columns(stage)
    rows = [
        (
            source.name,
            _measured(source),
            f"{source.share:.1%}",
            *(with_interval(source.totals[name]) for name in present),
        )
        for source in stage.sources
    ]
    if len(rows) > 1:
        rows.append(("all", "", "", *(with_interval(stage.totals[name]) for name in present)))
    title = f"{stage.number} {stage.name}: {stage.epochs:.3g} epochs; {how}"
    _print_fitting(title, ("source", "measured", "share", *present.values()), rows)


def _measured(source: SourceForecast) -> str:
    return f"{source.measured:,} of {source.distinct:,}" if source.measured < source.distinct else "all"


def _print_stages(stages: Sequence[StageForecast], prices: Prices) -> None:
    names = {"tokens_per_second": "hours by tokens/s", "tflops": "hours by TFLOP/s"}
    hours = [names[name] for name in prices.hours(stages[0])]
    rows = []
    for stage in stages:
        totals = stage.totals
        told = [with_interval(value) for value in (stage.steps, stage.rows, totals["pieces"], totals["tokens"])]
        rest = [with_interval(value, small=True) for value in prices.hours(stage).values()]
        rows.append((stage.name, *told, f"{stage.packing_efficiency:.3f}", scientific(totals["flops"]), *rest))
    if len(stages) > 1:
        sums = _sums(stages, prices)
        told = [with_interval(sums["steps"]), "", with_interval(sums["pieces"]), with_interval(sums["tokens"])]
        rest = [with_interval(value, small=True) for name, value in sums.items() if name.startswith("hours")]
        rows.append(("all", *told, "", scientific(sums["flops"]), *rest))
    columns = ("stage", "steps", "rows", "samples in rows", "tokens", "packing", "FLOPs", *hours)
    _print_fitting(f"stages, on {prices.workers:,} GPU{'s' if prices.workers > 1 else ''}", columns, rows)


def _print_fitting(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table. If it is wider than the terminal, what were its rows become columns, as many as fit at a time."""
    if _width([columns, *rows]) <= output.out.width:
        output.print_rows(title, columns, rows, to=output.out)
        return
    remaining = list(rows)
    while remaining:
        count = len(remaining)
        while count > 1 and _width(list(zip(columns, *remaining[:count], strict=True))) > output.out.width:
            count -= 1
        head, *lines = zip(columns, *remaining[:count], strict=True)
        output.print_rows(title, head, lines, to=output.out)
        remaining = remaining[count:]


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Return the width of a table in characters."""
    return sum(max(map(len, column)) + _GAP for column in zip(*lines, strict=True))


def with_interval(estimate: Estimate, small: bool = False) -> str:
    """Return a number with its interval: `6,210 ±1.3%`, `0 ≤24`, or `3 (1–9)` where it is not symmetric.

    Args:
        estimate: The number.
        small: Whether it may have digits behind the point.
    """

    def told(number: float) -> str:
        return f"{number:,.3g}" if small and number < 100 else f"{number:,.0f}"

    value, low, high = (told(number) for number in (estimate.value, estimate.low, estimate.high))
    if value == low == high:
        return value
    if not estimate.value:
        return f"0 ≤{high}"
    return f"{value} {_percent(estimate)}" if _symmetric(estimate) else f"{value} ({low}–{high})"


def scientific(estimate: Estimate) -> str:
    """Return a large number with its interval: `5.320e+11 ±0.6%`."""
    value = f"{estimate.value:.3e}"
    if estimate.exact:
        return value
    if _symmetric(estimate):
        return f"{value} {_percent(estimate)}"
    return f"{value} ({estimate.low:.1e}–{estimate.high:.1e})"


def _symmetric(estimate: Estimate) -> bool:
    above, below = estimate.high - estimate.value, estimate.value - estimate.low
    return abs(above - below) < 1e-6 * estimate.value


def _percent(estimate: Estimate) -> str:
    """Return half of an interval, as a share of its number."""
    share = (estimate.high - estimate.value) / estimate.value
    if share < _LEAST:
        return "±<0.1%"
    return f"±{100 * share:.0f}%" if share >= 0.095 else f"±{100 * share:.1g}%"
