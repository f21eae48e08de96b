"""Each rule by itself, on the facts of all rows: which planted defects it drops, and what else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from evidence.planted_pool import CHANGES, COPIES, DRAWN, EMPTY_TEXT, SOUND, TEXT, WRONG_TEXT
from manifests import Run, open_run
from manifests.rules import Rule, parse_rules

BLURRED, COMPRESSED, STRETCHED, TINY = CHANGES

MEANT: Mapping[str, Sequence[str]] = {
    "max_aspect_ratio": [STRETCHED],
    "min_side": [TINY],
    "top_quality": [BLURRED, COMPRESSED],
    "top_sharpness": [BLURRED],
    "max_nsfw": [DRAWN],
    "top_alt_similarity": [WRONG_TEXT, EMPTY_TEXT],
    "per_group_content_hash": ["exact"],
    "min_phash_distance": [*COPIES],
    "max_duplicate_similarity": [*COPIES],
    "max_text_share": [TEXT],
}
"""The kinds of defects that a rule is for, by its name."""

OTHER_THRESHOLDS: Mapping[str, Mapping[str, float]] = {
    "quality": {"top": 0.8, "top_sharpness": 0.9},
    "nsfw": {"max": 0.5},
    "similarity": {"top": 0.7},
}
"""Rules of other recipes with other thresholds, by stage, and one on a column that no recipe has a rule for."""

SOURCES: Mapping[str, str] = {
    "quality.top 0.8": "laptop.yaml",
    "quality.top_sharpness 0.9": "ours",
    "nsfw.max 0.5": "vl3syn7m.yaml",
    "similarity.top 0.7": "laptop.yaml, vl3syn7m.yaml",
    "duplicates.max_duplicate_similarity 0.96": "laptop.yaml, vl3syn7m.yaml",
    "ocr.max_text_share 0.1": "ours",
}
"""Where a threshold comes from; of those that are not named here, it is demo.yaml."""


@dataclass(frozen=True)
class Judged:
    """A rule of the recipe.

    Attributes:
        rule: As manifests evaluates it.
        source: The recipe that its threshold is from.
        reference: The column with the id of the image because of which a row is dropped, or None.
    """

    rule: Rule
    source: str
    reference: str | None

    @property
    def meant(self) -> Sequence[str]:
        return MEANT[self.rule.name]

    @property
    def is_about_copies(self) -> bool:
        return set(self.meant) <= set(COPIES)


def judge(recipe: Mapping[str, Any], run: Path, planted: Path) -> dict[str, Any]:
    """Judge the rules of a recipe on a run of all its stages.

    Args:
        recipe: Its `keep` are the rules.
        run: A run of the same stages without a rule.
        planted: The list of what each row is (`planted_pool.make`).

    Returns:
        `planted`: number of rows of each kind. `rules`: for each rule how many rows it judged (those with a value),
        dropped, and dropped rightly; `sound` and `sound_dropped`: rows without a defect, and which of them it dropped
        wrongly; `planted` and `found`: by kind of what it is for. `missed`: of each kind, how many no rule that is for
        it finds.

    Raises:
        SystemExit: Some rows have no facts.
    """
    opened = open_run(run)
    entries = json.loads(planted.read_text())
    facts = opened.manifest().collect()
    incomplete = facts.filter(pl.col("status") != "kept")
    if incomplete.height or sorted(facts["id"]) != sorted(entry["id"] for entry in entries):
        reasons = incomplete["drop_reason"].unique().to_list()
        raise SystemExit(f"{run}: {facts.height} of {len(entries)} rows, {incomplete.height} without facts: {reasons}")
    kinds = {entry["id"]: entry["kind"] for entry in entries}
    copies = {entry["id"]: entry["copy_of"] for entry in entries if entry["copy_of"] is not None}
    rules = [_judged(judged, facts, kinds, copies) for judged in rules_of(recipe, opened)]
    counts = Counter(kinds.values())
    found: dict[str, set[int]] = {kind: set() for kind in counts if kind != SOUND}
    for rule in rules:
        for kind, ids in rule["found"].items():
            found[kind] |= ids
        rule["found"] = {kind: len(ids) for kind, ids in rule["found"].items()}
    missed = {kind: counts[kind] - len(ids) for kind, ids in sorted(found.items())}
    return {"planted": dict(sorted(counts.items())), "rules": rules, "missed": missed}


def rules_of(recipe: Mapping[str, Any], run: Run) -> list[Judged]:
    """Return the rules of a recipe, each followed by those of `OTHER_THRESHOLDS` for its stage."""
    stored = {stage.name: stage for stage in run.stages}
    judged = []
    for entry in recipe["stages"]:
        name = entry["stage"]
        for keep in (entry.get("keep"), OTHER_THRESHOLDS.get(name)):
            for key, threshold in (keep or {}).items():
                [rule] = parse_rules({key: threshold}, stored[name].table.writes, f"{recipe['name']}: {name}")
                source = SOURCES.get(f"{name}.{key} {threshold}", "demo.yaml")
                judged.append(Judged(rule, source, stored[name].reference_column(rule)))
    return judged


def _judged(judged: Judged, facts: pl.DataFrame, kinds: Mapping[int, str], copies: Mapping[int, int]) -> dict[str, Any]:
    """A rule's numbers; `found` holds the ids.

    Of a copy and its original, a rule about copies may drop either: the copy is found if one of them is dropped, and,
    if the rule says so, because of the other.
    """
    rows = facts.filter(pl.col(judged.rule.column).is_not_null())
    dropped = rows.filter(~judged.rule.passes(rows))
    originals = {original: copy for copy, original in copies.items()}
    found: dict[str, set[int]] = {kind: set() for kind in judged.meant}
    right: set[int] = set()
    references = dropped[judged.reference] if judged.reference else [None] * dropped.height
    for row, reference in zip(dropped["id"], references, strict=True):
        planted = row
        if judged.is_about_copies:
            other = copies.get(row, originals.get(row))
            if other is None or (judged.reference and reference != other):
                continue
            planted = row if row in copies else other
        if kinds[planted] in found:
            found[kinds[planted]].add(planted)
            right.add(row)
    sound = {row for row in rows["id"] if kinds[row] == SOUND}
    present = Counter(kinds[row] for row in rows["id"])
    return {
        "rule": judged.rule.name,
        "drops": str(judged.rule),
        "source": judged.source,
        "rows": rows.height,
        "dropped": dropped.height,
        "right": len(right),
        "sound": len(sound),
        "sound_dropped": len(sound & set(dropped["id"]) - right),
        "planted": {kind: present[kind] for kind in judged.meant},
        "found": found,
    }
