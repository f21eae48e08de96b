"""Compare two runs: which rows ended elsewhere, and what of the recipe or the facts made them.

Nothing is computed but the verdicts. Memory: about 50 bytes per row of either run, beside the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from core.text import printable
from manifests.run import Run, step_name
from manifests.verdict import ERROR, FIRST_RULE, PENDING, StoredStage, Verdict

KEPT = "kept"
_KEPT_CODE = -1
_NO_SETTINGS = ("stage", "as", "keep", "table", "resources")
"""Keys of a recipe's stage that do not change what it computes, or that are compared by themselves."""


@dataclass(frozen=True)
class Place:
    """Where a row ended.

    Attributes:
        status: `kept`, `dropped`, `error` or `pending`.
        stage: `index` or the stage where it left; empty if it is kept.
        reason: Why a rule dropped it, such as `quality < 0.5`; else empty.
        rule: The full name of the rule, such as `min_quality`; else empty.
    """

    status: str
    stage: str = ""
    reason: str = ""
    rule: str = ""

    def is_like(self, other: Place) -> bool:
        """Return whether it is the same place, whatever the threshold of its rule."""
        return (self.status, self.stage, self.rule) == (other.status, other.stage, other.rule)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.status, self.stage, printable(self.reason)) if part)


@dataclass(frozen=True)
class Move:
    """Rows that ended at one place in the first run and at another in the second.

    Attributes:
        before, after: The places; None: the run does not have the rows.
        rows: Their number.
        why: What differs at the stages of these places; empty for rows that only one run has.
        ids: Some of them, the smallest ids first.
    """

    before: Place | None
    after: Place | None
    rows: int
    why: str = ""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class StageChange:
    """What differs about a stage.

    Attributes:
        stage: Its name.
        only_in: `first` or `second`, if the other run does not have it; else empty.
        facts: Names of both tables, if they differ: other settings, another model, or other facts that it reads.
        settings: Settings that differ: both values by name.
        rules: Rules that differ: both thresholds by name; None where there is no such rule.
    """

    stage: str
    only_in: str = ""
    facts: tuple[str, str] | None = None
    settings: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    rules: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """What differs, in a few words."""
        if self.only_in:
            return f"{self.stage} is only in the {self.only_in} run"
        parts = ["other facts"] if self.facts else []
        parts += [f"{name} {_shown(old)} → {_shown(new)}" for name, (old, new) in self.rules.items()]
        return f"{self.stage}: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        rows: Rows of both runs.
        kept: Rows that both runs keep, each by itself.
        same: Rows that ended at the same place: kept, or left by the same rule, whatever its threshold.
        other_pool: Whether the recipes name different pools.
        stages: What differs about the stages, in the order of the recipes.
        moves: Rows that ended elsewhere, the largest number first; those that one run lacks are behind the others.
    """

    rows: tuple[int, int]
    kept: tuple[int, int]
    same: int
    other_pool: bool
    stages: tuple[StageChange, ...]
    moves: tuple[Move, ...]


def compare(first: Run, second: Run, examples: int = 3) -> Comparison:
    """Compare where the rows of two runs ended.

    Args:
        first, second: The runs.
        examples: Number of ids for each move.

    Raises:
        UserError: A part of a table is damaged, or parts of the index are missing.
    """
    verdicts = first.verdict(), second.verdict()
    joined = _coded(verdicts[0], "before").join(_coded(verdicts[1], "after"), on="id", how="full", coalesce=True)
    names = _Places(first.stages), _Places(second.stages)
    changes = _changes(first, second)
    same, moves = 0, []
    grouped = joined.group_by("before", "after").agg(pl.len().alias("rows"), pl.col("id").bottom_k(examples).sort())
    for before_code, after_code, rows, ids in grouped.iter_rows():
        before, after = names[0].of(before_code), names[1].of(after_code)
        if before and after and before.is_like(after):
            same += rows
        else:
            why = _why(before, after, changes) if before and after else ""
            moves.append(Move(before, after, rows, why, tuple(ids)))
    moves.sort(key=lambda move: (move.before is None or move.after is None, -move.rows, str(move)))
    return Comparison(
        rows=(verdicts[0].rows, verdicts[1].rows),
        kept=(verdicts[0].alive.height, verdicts[1].alive.height),
        same=same,
        other_pool=first.recipe.get("pool") != second.recipe.get("pool"),
        stages=tuple(changes.values()),
        moves=tuple(moves),
    )


class _Places:
    """The places of a run, by their codes."""

    def __init__(self, stages: Sequence[StoredStage]) -> None:
        self._names = ["index", *(stage.name for stage in stages)]
        self._rules = [(), *(stage.rules for stage in stages)]

    def of(self, code: int | None) -> Place | None:
        if code is None:
            return None
        if code == _KEPT_CODE:
            return Place(KEPT)
        number, cause, missing = code >> 17, (code >> 1) & 0xFFFF, code & 1
        if cause in (ERROR, PENDING):
            return Place("error" if cause == ERROR else "pending", self._names[number])
        rule = self._rules[number][cause - FIRST_RULE]
        return Place("dropped", self._names[number], rule.reason_if_missing if missing else str(rule), rule.name)


def _coded(verdict: Verdict, name: str) -> pl.DataFrame:
    """Return where each row ended as one number, which `_Places` reads: columns `id` and `name`."""
    stage, cause, missing = (pl.col(column).cast(pl.Int64) for column in ("stage", "cause", "missing"))
    left = verdict.left.select("id", (stage * (1 << 17) + cause * 2 + missing).alias(name))
    alive = verdict.alive.select("id", pl.lit(_KEPT_CODE, pl.Int64).alias(name))
    return pl.concat([alive, left])


def _why(before: Place, after: Place, changes: Mapping[str, StageChange]) -> str:
    """Return what differs at the stages of two places."""
    stages = dict.fromkeys(place.stage for place in (before, after) if place.stage)
    reasons = [changes[stage].why for stage in stages if stage in changes and changes[stage].why]
    if reasons:
        return "; ".join(reasons)
    if "pending" in (before.status, after.status):
        return "not computed yet in one run"
    if "error" in (before.status, after.status):
        return "it failed in one run"
    elsewhere = next((change.why for change in changes.values() if change.why), "")
    return f"follows from {elsewhere}" if elsewhere else "same recipe: other images compete with these"


def _changes(first: Run, second: Run) -> dict[str, StageChange]:
    """Return the stages about which something differs, by name."""
    sides = [{step_name(entry): entry for entry in run.recipe.get("stages") or []} for run in (first, second)]
    changes = {}
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = sides[0].get(name), sides[1].get(name)
        if old is None or new is None:
            changes[name] = StageChange(name, "second" if old is None else "first")
            continue
        facts = (str(old.get("table")), str(new.get("table")))
        change = StageChange(
            name,
            facts=facts if facts[0] != facts[1] else None,
            settings=_differing(_settings(old), _settings(new)),
            rules=_differing(old.get("keep") or {}, new.get("keep") or {}),
        )
        if change != StageChange(name):
            changes[name] = change
    return changes


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe's stage; those of its engine each by itself, as `engine.url`."""
    settings: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping) and key not in _NO_SETTINGS:
            settings |= {f"{key}.{name}": part for name, part in value.items()}
        elif key not in _NO_SETTINGS:
            settings[key] = value
    return settings


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*old, *new])
    return {str(name): (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _shown(value: Any) -> str:
    return "none" if value is None else printable(str(value))
