"""The section of a study in docs/evidence.md: what was done, a table with intervals, and what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evidence.arms.statistics import Interval, difference, interval
from evidence.arms.table import LEGEND, NOT_TOLD, ONE_SEED, SHARED

from .lab import Column, Sizes, Study

Seeds = Sequence[Mapping[str, Any]]

TWO_SEEDS = " Two seeds: an interval of two values is wide or lucky, so this is a first look."


def section(study: Study, results: Mapping[str, Any]) -> str:
    """Return what stands between the marks of a study.

    Args:
        study: The study.
        results: `arms` has for each arm a list with the scores of each seed; besides `settings`, `command`, `date` and
            `machine`.
    """
    arms: Mapping[str, Seeds] = results["arms"]
    count, sizes = len(arms[study.reference]), Sizes(**results["settings"])
    how = (
        f"The small model of [train-arms.yaml](../benchmarks/evidence/train-arms.yaml), on scenes of {sizes.objects} "
        f"named cut-outs. {count} seed{'s' * (count > 1)}; {sizes.held_out} held-out samples. Losses are in nats per "
        f"token. Mean ± half of the 95 % interval (Student's t). {SHARED}{TWO_SEEDS * (count == 2)}"
    )
    made_by = f"`{results['command']}`, {results['date']}; {results['machine']}"
    about = study.about.format(**study.facts(sizes))
    return "\n\n".join([about, how, table(study, arms), LEGEND, statement(study, arms), made_by])


def table(study: Study, arms: Mapping[str, Seeds]) -> str:
    """Return the table, as Markdown: a row for each arm."""
    titles = ("", "held-out loss", f"difference to {study.arms[study.reference]}")
    lines = [(*titles, *(column.title for column in study.columns)), ("---",) * (len(titles) + len(study.columns))]
    lines += [_row(study, arm, arms) for arm in study.arms]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(study: Study, arm: str, arms: Mapping[str, Seeds]) -> tuple[str, ...]:
    seeds = arms[arm]
    against = "–" if arm == study.reference else _difference(study, arm, arms).text(study.digits, sign=True)
    cells = (_cell(column, [seed[column.key] for seed in seeds]) for column in study.columns)
    return (study.arms[arm], interval(_losses(seeds)).text(study.digits), against, *cells)


def _cell(column: Column, values: Sequence[float]) -> str:
    if column.percent:
        return f"{interval([100 * value for value in values]).text(column.digits)} %"
    return interval(values).text(column.digits)


def statement(study: Study, arms: Mapping[str, Seeds]) -> str:
    """Return what the losses show: which arms differ from the reference, and which the seeds do not tell from it."""
    verdicts: dict[str, list[str]] = {}
    for arm in study.arms:
        if arm == study.reference:
            continue
        verdict = _difference(study, arm, arms).verdict(study.digits)
        if verdict is None:
            return ONE_SEED
        verdicts.setdefault(verdict, []).append(study.arms[arm])
    said = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in sorted(verdicts.items()))
    return f"Loss compared with *{study.arms[study.reference]}*: {said}.{NOT_TOLD * ('not told apart' in verdicts)}"


def _difference(study: Study, arm: str, arms: Mapping[str, Seeds]) -> Interval:
    return difference(_losses(arms[arm]), _losses(arms[study.reference]))


def _losses(seeds: Seeds) -> list[float]:
    return [seed["loss"] for seed in seeds]
