"""The report of a run: one page with the funnel, scores, galleries, speed and provenance.

A section that the run has nothing for is left out: a run of an index alone has a report, and one that is being
computed, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manifests.diversity import Diversity, Spread, diversity
from manifests.funnel import Funnel, funnel
from manifests.indexing import index_warning
from manifests.rules import BALANCE
from manifests.run import Run
from manifests.verdict import Verdict
from manifests.version import __version__
from pipeline.execution.job_log import speeds
from pipeline.pools.registry import noun_of
from pipeline.reporting.charts import histogram, sizes
from pipeline.reporting.galleries import GalleryGroup, galleries
from pipeline.reporting.page import environment, number, render
from pipeline.reporting.provenance import provenance, recipe_text
from pipeline.reporting.scores import Score, scores

if TYPE_CHECKING:
    from markupsafe import Markup

_CLUSTER = "cluster"
"""Groups that are shown even if no rule balances them."""


MOST_REASONS = 30
"""Reasons of a stage that are listed, the most frequent ones: errors may hold any text, and each be another one."""


@dataclass(frozen=True)
class DrawnScore:
    """A score with what is shown of it.

    Attributes:
        score: The score.
        chart: Its histogram; None where there are no values to draw.
        images: Images on both sides of its rule; None without a rule, or for a rule on groups or pairs.
    """

    score: Score
    chart: Markup | None
    images: GalleryGroup | None


@dataclass(frozen=True)
class DrawnGroups:
    """The groups of a column, the chart of their sizes, and what a row is (`Pool.noun`)."""

    groups: Diversity
    chart: Markup
    noun: str

    @property
    def table(self) -> list[tuple[str, str, str]]:
        """Measures of the groups, before and after the rules."""
        before, after = (_measures(spread, self.noun) for spread in (self.groups.reached, self.groups.kept))
        return [(name, before[name], after[name]) for name in before]


@dataclass(frozen=True)
class ErrorKind:
    """Rows that failed at one step for one reason."""

    stage: str
    reason: str
    rows: int


def report(run: Run, say: Callable[[str], None] = lambda line: None) -> str:
    """Return the page about a run. `say` is called with a line for the user about each damaged record of a job.

    Raises:
        UserError: Nothing is indexed yet, a part is damaged, or a package of the extra `report` is missing.
    """
    environment()  # a missing package is reported before the work begins
    warning = index_warning(run)
    verdict = run.verdict()
    counted = funnel(run, verdict)
    shown = galleries(run, verdict)
    images = {(group.stage, group.rule): group for group in shown.rules}
    drawn = [
        DrawnScore(score, _histogram(score, position), images.get((score.stage, score.rule.name if score.rule else "")))
        for position, score in enumerate(scores(run, verdict))
    ]
    return render(
        "report.html",
        version=__version__,
        name=str(run.recipe.get("name") or "run"),
        url=run.url,
        warning=warning,
        funnel=counted,
        most_reasons=MOST_REASONS,
        totals=_totals(counted),
        ruled=[each for each in drawn if each.score.rule],
        unruled=[each for each in drawn if not each.score.rule and each.chart],
        noun=noun_of(run),
        groups=list(_groups(run, verdict)),
        images=shown,
        errors=list(_errors(run, counted)),
        speeds=speeds(run, say),
        provenance=provenance(run),
        recipe=recipe_text(run),
    )


def _totals(counted: Funnel) -> Mapping[str, int]:
    totals = {"kept": counted.survivors}
    for what in ("dropped", "errors", "pending"):
        totals[what] = sum(getattr(line, what) for line in counted.stages)
    return totals


def _histogram(score: Score, position: int) -> Markup | None:
    if not len(score.passed) + len(score.dropped):
        return None
    shown = f"{score.rule.kind} {number(score.rule.threshold)}" if score.rule else ""
    label = f"Histogram of {score.column}: {score.kept:,} rows kept, {score.lost:,} not"
    label += f"; the rule is {shown}" if shown else ""
    return histogram(f"score-{position}", label, score.passed, score.dropped, score.edge, shown)


def _groups(run: Run, verdict: Verdict) -> Iterator[DrawnGroups]:
    """Yield the groups that a rule balances, and clusters. Rules that keep one image of each are about duplicates."""
    stages, noun = run.stages, noun_of(run)
    rules = [rule for stage in stages for rule in stage.rules if rule.kind in BALANCE]
    balanced = [rule.column for rule in rules if (rule.kind, rule.threshold) != ("per_group", 1)]
    written = {field.name for stage in stages for field in stage.table.writes}
    for column in dict.fromkeys([*balanced, *({_CLUSTER} & written)]):
        groups = diversity(run, column, verdict)
        if not groups.reached.rows:
            continue
        label = (
            f"{noun.capitalize()}s per {column}, largest first: {groups.reached.groups:,} groups of up to "
            f"{groups.reached.largest:,} before the rules, {groups.kept.groups:,} of up to {groups.kept.largest:,} "
            "after"
        )
        before, after = (groups.sizes[name].to_numpy() for name in ("reached", "kept"))
        yield DrawnGroups(groups, sizes(f"groups-{column}", label, before, after, noun), noun)


def _measures(spread: Spread, noun: str) -> dict[str, str]:
    return {
        f"{noun}s": number(spread.rows),
        "groups": number(spread.groups),
        "effective number of groups": number(spread.effective),
        "smallest group": number(spread.smallest),
        "median group": number(spread.median),
        "largest group": number(spread.largest),
        "share of the largest group": f"{spread.largest_share:.1%}",
        "share of the largest 1 % of groups": f"{spread.top_share:.1%}",
    }


def _errors(run: Run, counted: Funnel) -> Iterator[ErrorKind]:
    """Yield the reasons of the funnel that are errors, not rules; of each stage the most frequent ones."""
    rules = {stage.name: stage.rules for stage in run.stages}
    for stage in counted.stages:
        ruled = {text for rule in rules.get(stage.stage, ()) for text in (str(rule), rule.reason_if_missing)}
        errors = [reason for reason in stage.reasons if reason not in ruled]
        for reason in sorted(errors, key=lambda reason: -stage.reasons[reason])[:MOST_REASONS]:
            yield ErrorKind(stage.stage, reason, stage.reasons[reason])
