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


INTRODUCTION = """\
Four arms choose as many images from one raw pool, by recipes of `vl3syn run`, and train the same new model for as many
tokens. The pool is made of scenes in which all is known: named cut-outs on plain grounds or photographs. A share of
its rows has {defects}; objects follow Zipf's law. The model is measured on clean scenes
in which all objects are equally frequent.

Two small models stand for published ones: a CLIP for ViT-L/14, and a VideoLLaMA3 of the students' size for InternVL.
**Both have learned from clean scenes of this very kind**, which are in no raw pool. So this shows what curation
gives where its models know the domain of the pool; it does not measure the published models."""

PICTURE = "![losses of the arms](images/arms.svg)"


def section(results: Mapping[str, Any]) -> str:
    """Return what stands between the marks: what was done, the table, the picture, and the command."""
    sizes, seeds = results["settings"], len(next(iter(results["arms"].values())))
    defects = [f"{share:.0%} {defect}" for defect, share in results["defects"].items()]
    how = (
        f"{seeds} seed{'s' * (seeds > 1)}, each with a raw pool of {sizes['scenes']:,} scenes of its own; "
        f"{sizes['images']:,} images per arm; {sizes['steps']:,} steps of 1,024 tokens; {sizes['held_out']} clean "
        f"held-out scenes. Mean ± half of the 95 % interval (Student's t). The right caption is ranked among "
        f"{results['among']}; by chance its rank is {(results['among'] + 1) / 2:g}."
    )
    if recaptioner := results.get("recaptioner"):
        how += (
            f" The recaptioner itself has a loss of {recaptioner['loss']:.3f} and a rank of {recaptioner['rank']:.1f}."
        )
    made_by = f"`{results['command']}`, {results['date']}; {results['machine']}"
    introduction = INTRODUCTION.format(defects=", ".join(defects))
    return "\n\n".join([introduction, how, table(results), PICTURE, made_by])


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
