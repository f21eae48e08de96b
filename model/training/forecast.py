"""Say what a training stage will see, before it runs: samples, tokens, images, film, steps, FLOPs.

1. Some samples of each source are measured, chosen at random among those that the stage reads.
2. The stage is packed as in training. Samples that were not measured have the sizes of measured ones of their source.
3. If all samples of the stage are measured, the numbers are those that training will report, not estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.training.data.measurement import QUANTITIES, Measured
from model.training.estimates import Estimate, Matrix, Strata, as_uncertain, wilson
from model.training.flops import RowSizes, flops
from model.training.simulation import Simulation, simulate
from model.training.skip_reasons import SkipReason, skip_reasons
from model.training.source_sample import Measurer, Progress, SourceSample, choose, seed_of
from model.training.stage_plan import StagePlan

TOTALS = ("samples", "skipped", "split", "pieces", "tokens", "learned", "text", "vision", "images", "frames", "seconds",
          "patches", "flops")  # fmt: skip
"""Names of the totals of a source and of a stage."""

_COLUMNS = (*QUANTITIES, "tokens", "flops")
_RARE = ("skipped", "split")  # counts that may be 0 in a sample
_OF_ALL = ("samples", *_RARE)  # counts to which skipped samples belong, too
_PILOT = 32  # samples of each source that tell how far a stage of so many steps reads
_MARGIN = 1.05  # it may read a little further than they told
_DUMMY = RowSizes(patches=2, vision=0, tokens=0, learned=0, vision_squares=4, language_squares=0)
"""What `PackedRow.with_media` adds to a row without media."""


@dataclass(frozen=True)
class SourceForecast:
    """What a stage will see of one source.

    Attributes:
        name: Its name.
        share: Its share of the stage's samples, 0 to 1.
        rows: Number of its samples that may be trained on, held-out ones left out.
        distinct: Number of different samples of it that the stage reads, or may read.
        measured: Number of them that were measured.
        totals: The quantities of `TOTALS`.
        reasons: Why measured samples are skipped, the most frequent reason first.
        shown: Some measured rows, in random order.
    """

    name: str
    share: float
    rows: int
    distinct: int
    measured: int
    totals: Mapping[str, Estimate]
    reasons: Sequence[SkipReason]
    shown: Sequence[int]


@dataclass(frozen=True)
class StageForecast:
    """What a stage will see.

    Attributes:
        name: Its name.
        number: Its number, from 1.
        exact: Whether all of its samples were measured, so that nothing is estimated.
        epochs: Length of the stage in epochs.
        steps: Number of steps.
        rows: Number of packed rows.
        packing_efficiency: Tokens divided by the rows' token budget, 0 to 1.
        totals: The quantities of `TOTALS`.
        sources: The forecast of each source.
    """

    name: str
    number: int
    exact: bool
    epochs: float
    steps: Estimate
    rows: Estimate
    packing_efficiency: float
    totals: Mapping[str, Estimate]
    sources: Sequence[SourceForecast]


def forecast(
    plan: StagePlan,
    measurer: Measurer,
    samples: int,
    *,
    deadline: float = math.inf,
    most: int = 100_000,
    progress: Progress = lambda done, total: None,
) -> StageForecast:
    """Measure samples of a stage and pack it.

    Args:
        plan: The stage.
        measurer: Measures rows; several stages may share it.
        samples: Number of samples that are measured of each source.
        deadline: Time of `time.monotonic` at which measuring ends, though some of each source are measured.
        most: Number of samples that are packed; of a longer stage the rest is extrapolated.
        progress: Is told how many samples of the stage are measured.

    Raises:
        UserError: Training would end with an error that can be foreseen, see `simulate`.
    """
    coefficients = _flops_coefficients(plan)
    reached = _samples_read(plan, measurer, deadline, most)
    sources = _measure(plan, measurer, reached, samples, deadline, progress)
    simulation = _simulate(plan, sources, most)
    return _collect(plan, sources, simulation, coefficients)


def _samples_read(plan: StagePlan, measurer: Measurer, deadline: float, most: int) -> int:
    """Return the number of samples that a stage reads, or with `steps` about as many."""
    total = plan.stage.num_samples(plan.sampler.epoch_length)
    if total is not None:
        return total
    positions = [order.rows for order in plan.sampler.source_orders]
    pilot = _sources(plan, measurer, positions, _PILOT, deadline, lambda done, total: None, purpose=1)
    return math.ceil(_MARGIN * _scale(plan, simulated := _simulate(plan, pilot, most)) * simulated.read)


def _measure(
    plan: StagePlan, measurer: Measurer, reached: int, samples: int, deadline: float, progress: Progress
) -> list[SourceSample]:
    """Measure so many samples of each source, of those among the first `reached` samples of the order."""
    return _sources(plan, measurer, plan.sampler.counts_before(reached), samples, deadline, progress, purpose=2)


def _sources(
    plan: StagePlan,
    measurer: Measurer,
    positions: Sequence[int],
    size: int,
    deadline: float,
    progress: Progress,
    purpose: int,
) -> list[SourceSample]:
    sampler = plan.sampler
    seeds = [seed_of(plan, source.name, purpose) for source in sampler.sources]
    orders = list(zip(sampler.source_orders, positions, seeds, strict=True))
    wanted = [choose(order, max(count, 1), size, seed) for order, count, seed in orders]
    measured = measurer.rows(plan, wanted, deadline, progress)

    def missing(source: int) -> Callable[[int], Measured]:
        return lambda row: measurer.one(plan, source, row)

    return [
        SourceSample(
            {row: rows[row] for row in chosen if row in rows}, min(max(count, 1), order.rows), missing(n), seed
        )
        for n, (chosen, rows, (order, count, seed)) in enumerate(zip(wanted, measured, orders, strict=True))
    ]


def _simulate(plan: StagePlan, sources: Sequence[SourceSample], most: int) -> Simulation:
    return simulate(
        plan.stage,
        plan.sampler,
        lambda source, row: sources[source](row),
        skip_limit=plan.recipe.skip_limit,
        most=most,
    )


def _scale(plan: StagePlan, simulation: Simulation) -> float:
    """Return how many times the whole stage is what was simulated."""
    if simulation.complete:
        return 1.0
    if plan.stage.steps is not None:
        return plan.stage.steps / simulation.steps
    total = plan.stage.num_samples(plan.sampler.epoch_length)
    assert total is not None
    return float(total / simulation.totals[:, QUANTITIES.index("samples")].sum())


def _collect(
    plan: StagePlan, sources: Sequence[SourceSample], simulation: Simulation, coefficients: Matrix
) -> StageForecast:
    scale, stage, sampler = _scale(plan, simulation), plan.stage, plan.sampler
    exact = simulation.complete and not any(source.drawn for source in sources)
    totals = _with_derived(simulation.totals, coefficients) * scale
    matrices = [
        _with_derived(np.array([one.sizes for one in source.measured.values()]), coefficients) for source in sources
    ]
    fills = {"tokens": stage.tokens, "patches": stage.patch_budget}
    budget = max(fills, key=lambda name: float(totals[:, _COLUMNS.index(name)].sum()) / fills[name])
    in_steps = stage.steps is not None
    counts = totals[:, 0].tolist()
    strata = Strata(
        counts,
        matrices,
        [len(source.measured) if exact else max(source.distinct, len(source.measured)) for source in sources],
        _COLUMNS.index(budget) if in_steps else None,
        simulation.packing_error if in_steps and not exact else 0.0,
    )
    by_source = [_totals(values, strata, [number]) for number, values in enumerate(totals)]
    whole = _totals(totals.sum(0), strata, range(len(sources)))
    for name in _RARE:
        parts = [each[name] for each in by_source]
        whole[name] = Estimate(whole[name].value, sum(e.low for e in parts), sum(e.high for e in parts))
    if not in_steps:  # in steps, other samples take the place of skipped ones
        unseen = [_unseen_skips(each) for each in by_source]
        by_source = [_less(each, lost) for each, lost in zip(by_source, unseen, strict=True)]
        whole = _less(whole, {name: sum(lost[name] for lost in unseen) for name in whole})
    text_rows = simulation.text_rows * scale
    whole["flops"] = _plus(whole["flops"], float(text_rows * (_vector(_DUMMY) @ coefficients)))
    rows = Estimate.exactly(simulation.rows * scale)
    steps = Estimate.exactly(math.ceil(simulation.steps * scale - 1e-9))
    if not in_steps and not exact:  # as uncertain as what fills the rows
        rows, steps = (as_uncertain(each.value, whole[budget], simulation.packing_error) for each in (rows, steps))
    return StageForecast(
        name=stage.name,
        number=plan.number,
        exact=exact,
        epochs=sum(counts) / sampler.epoch_length,
        steps=steps,
        rows=rows,
        packing_efficiency=simulation.tokens / (simulation.rows * stage.tokens),
        totals=whole,
        sources=[_source(plan, n, strata, by_source[n], source) for n, source in enumerate(sources)],
    )


def _source(
    plan: StagePlan, number: int, strata: Strata, totals: Mapping[str, Estimate], source: SourceSample
) -> SourceForecast:
    name, order = plan.sampler.sources[number].name, plan.sampler.source_orders[number]
    return SourceForecast(
        name=name,
        share=float(strata.counts[number] / sum(strata.counts)),
        rows=order.rows,
        distinct=strata.distinct[number],
        measured=len(source.measured),
        totals=totals,
        reasons=skip_reasons(name, source.measured.values()),
        shown=list(source.measured),
    )


def _unseen_skips(totals: Mapping[str, Estimate]) -> dict[str, float]:
    """Return how much less of each quantity there is if as many samples are skipped as the interval allows."""
    skipped = totals["skipped"]
    share = (skipped.high - skipped.value) / max(totals["samples"].value - skipped.value, 1.0)
    return {name: 0.0 if name in _OF_ALL else value.value * min(share, 1.0) for name, value in totals.items()}


def _less(totals: Mapping[str, Estimate], lost: Mapping[str, float]) -> dict[str, Estimate]:
    """Return the estimates with intervals that begin at least so much below the values."""
    return {name: estimate.down_to(estimate.value - lost[name]) for name, estimate in totals.items()}


def _totals(values: Matrix, strata: Strata, sources: Sequence[int]) -> dict[str, Estimate]:
    """Return the estimates of all totals over some sources; `values` has those of all columns."""
    estimates = {}
    for name in TOTALS:
        column = _COLUMNS.index(name)
        value = float(values[column])
        measured = [strata.measured[number] for number in sources]
        if name in _RARE and len(measured) == 1 and len(measured[0]) < strata.distinct[sources[0]]:
            found = int(measured[0][:, column].sum())
            estimates[name] = wilson(value, strata.counts[sources[0]], found, len(measured[0]))
        else:
            estimates[name] = Estimate.around(value, math.hypot(strata.half(column, sources), strata.packing * value))
    return estimates


def _with_derived(sizes: Matrix, coefficients: Matrix) -> Matrix:
    """Return the sizes (n, quantities) with the columns `tokens` and `flops`."""
    tokens = sum(sizes[:, QUANTITIES.index(name)] for name in ("learned", "text", "vision"))
    parts = [_column(sizes, name) if name != "tokens" else tokens for name in RowSizes.__dataclass_fields__]
    return np.column_stack([sizes, tokens, np.column_stack(parts) @ coefficients])


def _column(sizes: Matrix, name: str) -> Matrix:
    column: Matrix = sizes[:, QUANTITIES.index(name)]
    return column


def _vector(sizes: RowSizes) -> Matrix:
    return np.array(list(vars(sizes).values()), dtype=np.float64)


def _flops_coefficients(plan: StagePlan) -> Matrix:
    """Return the FLOPs of one unit of each field of `RowSizes`: FLOPs are linear in them."""
    model, fields = plan.model_without_weights(), list(RowSizes.__dataclass_fields__)
    return np.array([flops(model, RowSizes(*(float(name == each) for each in fields))) for name in fields])


def _plus(estimate: Estimate, more: float) -> Estimate:
    return Estimate(estimate.value + more, estimate.low + more, estimate.high + more)
