"""The result of `vl3syn eval`, as JSON and as a table."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.evaluate import Evaluation
    from model.scored_tasks import GroupScores, TaskScores

_LABEL = 60  # characters of a group's value in the table


def evaluation_json(checkpoint: str, data: str, encoder: str | None, result: Evaluation) -> dict[str, Any]:
    """Return what `vl3syn eval --json` prints."""
    loss, scores = result.loss, result.clip_scores
    return {
        "checkpoint": checkpoint,
        "data": data,
        "loss": {"mean": loss.mean, "tokens": loss.tokens, "samples": loss.samples},
        "shuffled_loss": asdict(result.shuffled) if result.shuffled else None,
        "answers": asdict(result.metrics) if result.metrics else None,
        "scores": _scores_json(result.scores) if result.scores else None,
        "clip_score": {"encoder": encoder, "mean": result.mean_clip_score, "count": len(scores)} if encoder else None,
        "skipped": result.skipped,
    }


def _scores_json(scores: TaskScores) -> dict[str, Any]:
    return {
        "task": scores.task,
        "scoring": scores.scoring,
        "means": {name: asdict(score) for name, score in scores.means.items()},
        "groups": {key: asdict(groups) for key, groups in scores.groups.items()},
        "unread": scores.unread,
        "left_out": scores.left_out,
    }


def evaluation_rows(encoder: str | None, result: Evaluation) -> list[tuple[str, float, str]]:
    """Return the rows of the table: what, value, and of what it is a part or mean."""
    loss, metrics, scores = result.loss, result.metrics, result.clip_scores
    rows = [("loss", loss.mean, f"nats per token; {_many(loss.tokens, 'token')} of {_many(loss.samples, 'sample')}")]
    if other := result.shuffled:
        of = f"nats per token; {other.own:.4f} with their own; {_many(other.samples, 'sample')}"
        rows.append(("loss with other images", other.mean, of))
    if metrics:
        rows += [
            ("chrF", metrics.chrf, f"100; {_many(metrics.count, 'answer')}; {metrics.chrf_signature}"),
            ("ROUGE-L", metrics.rouge_l, f"1; F1, mean over {_many(metrics.rouge_l_count, 'answer')}"),
            ("exact match", metrics.exact, "1; case and space aside"),
        ]
    rows += _score_rows(result.scores) if result.scores else []
    if encoder:
        rows.append(
            ("CLIPScore", result.mean_clip_score, f"2.5; {_many(len(scores), 'answer')} about one image; {encoder}")
        )
    return [row for row in rows if not math.isnan(row[1])]


def _score_rows(scores: TaskScores) -> list[tuple[str, float, str]]:
    by = "" if scores.scoring == "standard" else f"; scored as {scores.scoring} does"
    rows = [(name, score.value, f"1; {_many(score.count, 'answer')}{by}") for name, score in scores.means.items()]
    rows += [row for key, groups in scores.groups.items() for row in _group_rows(key, groups, by)]
    if scores.unread is not None:
        found = "option" if scores.task == "choice" else "time span"
        rows.append(
            ("unread", scores.unread, f"{_many(len(scores.answers), 'answer')}; no {found} in it, so it scores 0")
        )
    if scores.left_out:
        rows.append(("left out", len(scores.left_out), "samples that do not count for this task"))
    return rows


def _group_rows(key: str, groups: GroupScores, by: str) -> list[tuple[str, float, str]]:
    rows = [
        (f"{name}, {key} {value[:_LABEL]}", score.value, f"1; {_many(score.count, 'answer')}{by}")
        for value, means in groups.values.items()
        for name, score in means.items()
    ]
    return rows + [
        (f"{name}, mean by {key}", score.value, f"1; mean of {_many(score.count, 'value')} of {key}{by}")
        for name, score in groups.means.items()
    ]


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
