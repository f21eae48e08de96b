"""The table of the arms, as Markdown, and its place in docs/evidence.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .statistics import difference, interval

BEGIN, END = "<!-- arms: begin -->", "<!-- arms: end -->"
TITLE = "# Evidence\n"
LABELS = {
    "random": "a: random, alt texts",
    "filtered": "b: filtered",
    "balanced": "c: filtered, balanced",
    "recaptioned": "d: filtered, balanced, recaptioned",
}
COLUMNS = (
    "arm",
    "loss, nats per token",
    "difference to a",
    "with other images",
    "rank of the right caption",
    "right captions",
    "distinct scenes",
    "effective objects",
)

Seeds = Sequence[Mapping[str, Any]]


def table(results: Mapping[str, Any]) -> str:
    """Return the table of results: a row for each arm, means over its seeds with 95 % intervals.

    Args:
        results: `arms` has for each arm a list with the scores and the composition of each seed.
    """
    arms: Mapping[str, Seeds] = results["arms"]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(_row(arm, seeds, arms.get("random")) for arm, seeds in arms.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(arm: str, seeds: Seeds, reference: Seeds | None) -> Sequence[str]:
    losses = [seed["loss"] for seed in seeds]
    against = "–"
    if reference is not None and arm != "random":
        against = difference(losses, [seed["loss"] for seed in reference]).text(sign=True)
    return (
        LABELS[arm],
        interval(losses).text(),
        against,
        interval([seed["shuffled"] for seed in seeds]).text(2),
        interval([seed["rank"] for seed in seeds]).text(1),
        f"{interval([seed['right captions'] for seed in seeds]).mean:.0%}",
        f"{interval([seed['distinct scenes'] for seed in seeds]).mean:.0%}",
        f"{interval([seed['effective objects'] for seed in seeds]).mean:.1f}",
    )


def section(results: Mapping[str, Any]) -> str:
    """Return what stands between the marks: what was done, by which command, and the table."""
    sizes, seeds = results["settings"], len(next(iter(results["arms"].values())))
    how = (
        f"{seeds} seed{'s' * (seeds > 1)}, each with a raw pool of {sizes['scenes']:,} scenes of its own; "
        f"{sizes['images']:,} images per arm; {sizes['steps']:,} steps of 1,024 tokens; {sizes['held_out']} clean "
        f"held-out scenes. Mean ± half of the 95 % interval (Student's t). The right caption is ranked among "
        f"{results['among']}; by chance its rank is {(results['among'] + 1) / 2:g}."
    )
    return f"{how}\n\n{table(results)}\n\n`{results['command']}`, {results['date']}; {results['machine']}"


def write_page(page: Path, text: str) -> None:
    """Put a text between the marks of a page. A page without marks gets them at its end; a missing one is made.

    It exits with one line if there is only one of the two marks.
    """
    old = page.read_text() if page.is_file() else TITLE
    if (BEGIN in old) != (END in old):
        sys.exit(f"{page}: only one of the marks {BEGIN} and {END}: put both there, or neither")
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n## Training on curated against random\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN, 1)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")
