"""Choose duplicates, each next to the image that it duplicates."""

from __future__ import annotations

import polars as pl

from manifests.rules import Rule
from manifests.verdict import FIRST_RULE, StoredStage
from pipeline.reporting.choice import Choice, ChoiceGroup, Seen, mixed

LARGEST, UNSURE = 4, 4
"""Groups that are shown: those with the most duplicates, and those with the least certain one."""

_DUPLICATES = 3  # of a group


def duplicate_choices(seen: Seen) -> list[ChoiceGroup]:
    """Return a group of galleries for each rule that drops an image because of another one.

    A gallery has the image that is kept, and some images that the rule dropped because of it.
    """
    groups = []
    for number, stage in enumerate(seen.run.stages, start=1):
        for position, rule in enumerate(stage.rules):
            reference = stage.reference_column(rule)
            if reference is None:
                continue
            pairs = _pairs(seen, stage, rule, reference, number, FIRST_RULE + position)
            if pairs.height:
                groups.append(_group(stage, rule, pairs, seen.noun))
    return groups


def _pairs(seen: Seen, stage: StoredStage, rule: Rule, reference: str, number: int, cause: int) -> pl.DataFrame:
    """Return the dropped images: `id`, `reference` (the other image's id), and `certainty` (larger: more alike)."""
    value = pl.col(rule.column).cast(pl.Float64)
    stored = stage.table.scan(["id", rule.column, reference]).select(
        "id", reference=pl.col(reference), certainty=-value if rule.kind == "min" else value
    )
    known = stored.drop_nulls().join(seen.ids, left_on="reference", right_on="id", how="semi")
    reached = seen.reached(known, number, cause)
    return reached.filter(~pl.col("passed")).drop("passed").collect(engine="streaming")


def _group(stage: StoredStage, rule: Rule, pairs: pl.DataFrame, noun: str) -> ChoiceGroup:
    by_reference = mixed(pairs).sort("certainty", maintain_order=True).group_by("reference", maintain_order=True)
    groups = by_reference.agg(pl.col("id"), pl.len().alias("size"), pl.col("certainty").min())
    largest = groups.sort("size", descending=True, maintain_order=True).head(LARGEST)
    unsure = groups.filter(~pl.col("reference").is_in(largest["reference"].implode())).sort("certainty").head(UNSURE)
    choices = []
    for row in pl.concat([largest, unsure]).iter_rows(named=True):
        duplicates = row["id"][:_DUPLICATES]
        labels = {row["reference"]: "original"} | dict.fromkeys(duplicates, "duplicate")
        title = f"{row['size']:,} duplicate{'s' if row['size'] > 1 else ''} of one {noun}"
        choices.append(Choice(title, [row["reference"], *duplicates], columns=(rule.column,), labels=labels))
    note = f"Duplicates: {pairs.height:,}, of {groups.height:,} {noun}s; dropped if {rule}."
    return ChoiceGroup(f"{stage.name}: {rule.column}", choices, note, stage=stage.name, rule=rule.name)
