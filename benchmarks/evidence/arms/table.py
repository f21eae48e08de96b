"""The table of the arms, as Markdown, and its place in docs/evidence.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from .statistics import difference, interval

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
    "complete ones",
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
        f"{interval([seed['complete captions'] for seed in seeds]).mean:.0%}",
        f"{interval([seed['distinct scenes'] for seed in seeds]).mean:.0%}",
        f"{interval([seed['effective objects'] for seed in seeds]).mean:.1f}",
    )


INTRODUCTION = """\
Four arms choose as many images from one raw pool, by recipes of `vl3syn run`, and train the same new model for as many
tokens. The pool is made of scenes in which all is known: named cut-outs on plain grounds or photographs. Of its rows,
{defects}. Objects follow Zipf's law. Of the true alt texts,
{incomplete:.0%} name one object and nothing else. The model is measured on clean scenes in which all objects are
equally frequent, with complete captions.

Two small models stand for published ones: a CLIP for ViT-L/14, and a VideoLLaMA3 of the students' size for InternVL.
**Both have learned from clean scenes of this very kind**, which are in no raw pool. So this shows what curation
gives where its models know the domain of the pool; it does not measure the published models. Arm d is as good as its
captioner: *right captions* is the share that is the complete caption or names one object of the scene, *complete ones*
the share of the former alone. CLIP has learned from texts of both kinds, the captioner from complete ones, whose form
is that of the held-out captions. So a part of what tells d from the others is form: who learns from incomplete
captions expects a sentence to end early. The rank compares complete captions with each other, so it tells more of
what a model sees."""

DEFECTS = {
    "wrong caption": "have the alt text of another scene",
    "boilerplate": "have an alt text that says nothing",
    "near-duplicate": "are near-duplicates of a few others",
    "blurred": "are blurred",
    "tiny": "are tiny",
}
LEGEND = (
    "*With other images* is the loss when each caption is judged beside another sample's image: how much the model "
    "looks. *Distinct scenes* is the share that is left if near-duplicates count once. *Effective objects* is how many "
    "equally frequent objects are as diverse (the exponential of the entropy)."
)
SHARED = "All seeds share the held-out samples and the models that help; intervals do not hold their variation."
ONE_SEED = "One seed has no interval: it does not show which differences are more than chance."
NOT_TOLD = " Where the interval of a difference holds 0, these seeds do not tell the two apart."

PICTURE = "![losses of the arms](images/arms.svg)"


def section(results: Mapping[str, Any]) -> str:
    """Return what stands between the marks: what was done, the table, the picture, and the command."""
    sizes, seeds = results["settings"], len(next(iter(results["arms"].values())))
    defects = [f"{share:.0%} {DEFECTS[defect]}" for defect, share in results["defects"].items()]
    how = (
        f"{seeds} seed{'s' * (seeds > 1)}, each with a raw pool of {sizes['scenes']:,} scenes of its own; "
        f"{sizes['images']:,} images per arm; {sizes['steps']:,} steps of {sizes['tokens']} tokens; "
        f"{sizes['held_out']} clean held-out scenes. Mean ± half of the 95 % interval (Student's t). {SHARED} The "
        "right caption is ranked among "
        f"{results['among']}; by chance its rank is {(results['among'] + 1) / 2:g}."
    )
    if recaptioner := results.get("recaptioner"):
        how += (
            f" The recaptioner itself has a loss of {recaptioner['loss']:.3f} and a rank of {recaptioner['rank']:.1f}."
        )
    made_by = f"`{results['command']}`, {results['date']}; {results['machine']}"
    introduction = INTRODUCTION.format(defects=", ".join(defects), incomplete=results["incomplete"])
    said = statement(results["arms"])
    return "\n\n".join([introduction, how, table(results), LEGEND, said, PICTURE, made_by])


def statement(arms: Mapping[str, Seeds]) -> str:
    """Return what the losses show: how each arm compares with the one above it, and with the first one."""
    first, *others = arms
    if any(len(seeds) == 1 for seeds in arms.values()):
        return ONE_SEED
    to_above = ", ".join(_compared(arms, arm, above) for above, arm in pairwise(arms))
    to_first = ", ".join(_compared(arms, arm, first) for arm in others)
    note = NOT_TOLD * ("not told apart" in to_above + to_first)
    return f"Loss of each arm compared with the one above it: {to_above}; with {LABELS[first][0]}: {to_first}.{note}"


def _compared(arms: Mapping[str, Seeds], arm: str, reference: str) -> str:
    losses, others = ([seed["loss"] for seed in arms[name]] for name in (arm, reference))
    return f"{LABELS[arm][0]} {difference(losses, others).verdict()}"


def write_page(page: Path, text: str, name: str = "arms", heading: str = "Training on curated against random") -> None:
    """Put a text between the marks `name` of a page. A page without them gets them at its end; a missing one is made.

    It exits with one line if there is only one of the two marks.
    """
    begin, end = marks(name)
    old = page.read_text() if page.is_file() else TITLE
    if (begin in old) != (end in old):
        sys.exit(f"{page}: only one of the marks {begin} and {end}: put both there, or neither")
    if begin not in old:
        old = f"{old.rstrip()}\n\n## {heading}\n\n{begin}\n{end}\n"
    before, rest = old.split(begin, 1)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}")


def marks(name: str) -> tuple[str, str]:
    """Return the marks around a generated section of a page."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
