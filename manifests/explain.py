"""Explain one image: everything stored about it, and why it was kept or dropped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from core.errors import UserError
from manifests.html import html_table
from manifests.run_tables import RunTables


@dataclass(frozen=True)
class StageAccount:
    """What one stage has stored about an image.

    Attributes:
        stage: The stage's name.
        outcome: `passed`, `dropped`, `error`, `pending`, or `not reached`.
        facts: The stored columns; empty where nothing is stored.
        rules: Threshold of each of the stage's rules, by the rule's full name.
        computed_by: The provenance of the image's row; empty where nothing is stored.
    """

    stage: str
    outcome: str
    facts: dict[str, object]
    rules: dict[str, float]
    computed_by: dict[str, object]


@dataclass(frozen=True, repr=False)
class Account:
    """One image: its row of the index, its verdict, and the account of each stage. A notebook shows it as a table.

    Attributes:
        image: The row of the index.
        status: `kept`, `dropped`, `error` or `pending`, as in the manifest.
        drop_stage: `index` or the stage where the row left; None for kept rows.
        drop_reason: Why it left; None for kept rows.
        stages: What each stage has stored, in the recipe's order.
    """

    image: dict[str, object]
    status: str
    drop_stage: str | None
    drop_reason: str | None
    stages: tuple[StageAccount, ...]

    def as_json(self) -> dict[str, object]:
        """Return what `vl3syn explain --json` prints for this image."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"Account({self.image['key']!r}, {self._verdict!r})"

    @property
    def _verdict(self) -> str:
        return f"{self.status}: {self.drop_reason} (at {self.drop_stage})" if self.drop_stage else self.status

    def _repr_html_(self) -> str:
        rows = [["index", "", name, _plain(value)] for name, value in self.image.items() if value is not None]
        for stage in self.stages:
            rules = ", ".join(f"{name} {threshold:g}" for name, threshold in stage.rules.items())
            outcome = f"{stage.outcome} ({rules})" if rules else stage.outcome
            facts = stage.facts or {"nothing stored": None}
            rows += [[stage.stage, outcome, name, _plain(value)] for name, value in facts.items()]
        return html_table(self._verdict, ["stage", "outcome", "column", "value"], rows)


def _plain(value: object) -> object:
    """Integers without separators: some are ids, which `explain` accepts."""
    return str(value) if isinstance(value, int) else value


def explain(run: RunTables, key: str) -> list[Account]:
    """Return the accounts of all images that `key` names, see `Run.explain`."""
    called = (pl.col("key") == key) | (pl.concat_str("shard", pl.lit("/"), "key") == key)
    if key.removeprefix("-").isdecimal() and abs(int(key)) < 2**63:
        called |= pl.col("id") == int(key)
    rows = run.manifest().filter(called).collect().to_dicts()
    if not rows:
        raise UserError(f"{run.url} has no image called {key!r}; give its key, shard/key or id as the index has them")
    return [_account(run, row) for row in rows]


def _account(run: RunTables, row: dict[str, Any]) -> Account:
    image = {name: row[name] for name in run.index.schema.names if name in row}
    end = row["drop_stage"]
    past_end = end == "index"
    stages: list[StageAccount] = []
    for stage in run.stages:
        here = stage.name == end
        outcome = row["status"] if here else "not reached" if past_end else "passed"
        facts = {n: row[n] for n in stage.table.writes.names if n in row}
        part = stage.table.part_of(row["id"])
        judged = part is not None and outcome in ("passed", "dropped")  # its values may all be null: unknown, missing
        stored = judged or any(value is not None for value in facts.values())
        rules = {r.name: r.threshold for r in stage.rules}
        computed_by = stage.table.provenance(part) if part else {}
        stages.append(StageAccount(stage.name, outcome, facts if stored else {}, rules, computed_by))
        past_end = past_end or here
    return Account(image, row["status"], end, row["drop_reason"], tuple(stages))
