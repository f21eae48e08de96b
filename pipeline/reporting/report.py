"""The report of a run: one page with the funnel, scores, galleries, speed and provenance."""

from __future__ import annotations

from manifests.funnel import funnel
from manifests.run import Run
from manifests.version import __version__
from pipeline.reporting.page import render


def report(run: Run) -> str:
    """Return the page about a run. What the run does not have (rules, captions, …) is left out.

    Raises:
        UserError: Nothing is indexed yet, a part is damaged, or a package of the extra `report` is missing.
    """
    name = str(run.recipe.get("name") or "run")
    return render("report.html", name=name, version=__version__, funnel=funnel(run))
