"""Choose captions: the longest, the shortest, those that quality checks flag, and some at random."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from manifests.priorities import priority
from manifests.verdict import StoredStage
from pipeline.reporting.choice import Choice, ChoiceGroup, Seen

IMAGES = 3
"""Images of a gallery."""

_SUFFIX = "_caption"
_REPETITION, _LANGUAGE = 0.2, 0.01  # a loop has nearly 1; other languages have less (captioners/quality_checks.py)


def caption_choices(seen: Seen) -> list[ChoiceGroup]:
    """Return a group of galleries for each caption that a stage writes."""
    groups = []
    for number, stage in enumerate(seen.run.stages, start=1):
        for field in stage.table.writes:
            if field.name.endswith(_SUFFIX) and (
                pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            ):
                groups += _group(seen, number, stage, field.name)
    return groups


def _group(seen: Seen, number: int, stage: StoredStage, caption: str) -> list[ChoiceGroup]:
    use, stored = caption.removesuffix(_SUFFIX), set(stage.table.writes.names)
    words = f"{use}_words" if f"{use}_words" in stored else ""
    checks = {name: flag for name, flag in _checks(use).items() if name in stored}
    length = pl.col(words) if words else pl.col(caption).str.len_chars()
    scan = stage.table.scan(["id", *([words] if words else [caption]), *checks])
    reached = seen.reached(scan.select("id", *checks, length=length), number).drop("passed")
    rows = reached.filter(pl.col("length").is_not_null()).collect(engine="streaming")
    if not rows.height:
        return []
    shown = (caption, *([words] if words else []))
    by_length = rows.sort("length", "id")["id"]
    drawn = rows["id"].to_numpy()
    samples = {
        "Longest": by_length.tail(IMAGES).reverse().to_list(),
        "Shortest": by_length.head(IMAGES).to_list(),
        "At random": drawn[np.argsort(priority(drawn))[:IMAGES]].tolist(),
    }
    choices = [Choice(title, ids, columns=shown) for title, ids in samples.items()]
    for name, flag in checks.items():
        flagged = rows.filter(flag)
        if flagged.height:
            worst = flagged.sort(name, "id", descending=[name != f"{use}_language", False])
            title = f"Flagged: {name} ({flagged.height:,})"
            choices.append(Choice(title, worst["id"].head(IMAGES).to_list(), columns=(caption, name)))
    return [ChoiceGroup(f"{stage.name}: {caption}", choices, f"Captions: {rows.height:,}.", stage=stage.name)]


def _checks(use: str) -> Mapping[str, pl.Expr]:
    """Return the columns of the quality checks of a caption, each with the condition under which it is flagged."""
    return {
        f"{use}_cut": pl.col(f"{use}_cut") > 0,
        f"{use}_refused": pl.col(f"{use}_refused") > 0,
        f"{use}_repetition": pl.col(f"{use}_repetition") > _REPETITION,
        f"{use}_language": pl.col(f"{use}_language") < _LANGUAGE,
        f"{use}_control_tokens": pl.col(f"{use}_control_tokens") > 0,
    }
