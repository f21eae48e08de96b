"""Choose some groups, such as clusters, and of each a few images that balance rules keep and drop."""

from __future__ import annotations

import numpy as np
import polars as pl

from manifests.rules import BALANCE, Rule
from manifests.verdict import FIRST_RULE, StoredStage
from pipeline.reporting.choice import Choice, ChoiceGroup, Seen, mixed
from pipeline.reporting.rule_choices import table_of

GROUPS = 8
"""Groups that are shown of each rule: from the largest to the smallest, evenly by rank."""

KEPT, DROPPED = 4, 4
"""Images of a group that are shown."""


def group_choices(seen: Seen, single: bool) -> list[ChoiceGroup]:
    """Return a group of galleries for each balance rule: one gallery for each of some of its groups.

    Args:
        seen: The run.
        single: Only rules that keep one image of each group (duplicates, by a common value); else only the others.
    """
    groups = []
    for number, stage in enumerate(seen.run.stages, start=1):
        for position, rule in enumerate(stage.rules):
            if rule.kind not in BALANCE or single != (rule.kind == "per_group" and rule.threshold == 1):
                continue
            groups_of = pl.col(rule.column).list.unique() if rule.of_lists else pl.col(rule.column)
            stored = table_of(stage, rule.column).select("id", group=groups_of)
            stored = (stored.explode("group") if rule.of_lists else stored).drop_nulls()
            rows = seen.reached(stored, number, FIRST_RULE + position).collect(engine="streaming")
            if rows.height and not (single and rows["passed"].all()):
                groups.append(_group(stage, rule, rows))
    return groups


def _group(stage: StoredStage, rule: Rule, rows: pl.DataFrame) -> ChoiceGroup:
    sizes = rows.group_by("group").agg(pl.len().alias("reached"), pl.col("passed").sum().alias("kept"))
    sizes = sizes.sort("reached", "group", descending=[True, False])
    changed = sizes.filter(pl.col("kept") < pl.col("reached"))  # of others, before and after are the same
    shown = changed if changed.height else sizes
    shown = shown[np.unique(np.linspace(0, shown.height - 1, min(GROUPS, shown.height)).round().astype(int))]
    some = mixed(rows.filter(pl.col("group").is_in(shown["group"].implode())))
    choices = []
    for group, reached, kept in shown.iter_rows():
        of_group = some.filter(pl.col("group") == group)
        images = [of_group.filter(pl.col("passed") == side)["id"] for side in (True, False)]
        ids = [*images[0].head(KEPT), *images[1].head(DROPPED)]
        choices.append(Choice(f"{rule.column} {group}: {kept:,} of {reached:,} kept", ids))
    note = f"{changed.height:,} of {sizes.height:,} groups are reduced; dropped if {rule}."
    return ChoiceGroup(f"{stage.name}: {rule.name}", choices, note, stage=stage.name, rule=rule.name)
