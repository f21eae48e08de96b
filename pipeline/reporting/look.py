"""A gallery of a selection of images, as one page."""

from __future__ import annotations

from dataclasses import dataclass

from manifests.run import Run
from manifests.selection import Selection, select
from manifests.version import __version__
from pipeline.reporting.choice import Choice, Seen
from pipeline.reporting.galleries import Gallery, fill
from pipeline.reporting.page import render


@dataclass(frozen=True)
class Look:
    """A selection with its pictures.

    Attributes:
        run: The run.
        selection: What was asked for.
        fitting: Number of images that fit, also those beyond the limit.
        gallery: The images that are shown.
    """

    run: Run
    selection: Selection
    fitting: int
    gallery: Gallery

    def page(self) -> str:
        """Return the page.

        Raises:
            UserError: A package of the extra `report` is missing.
        """
        name = str(self.run.recipe.get("name") or "run")
        return render("look.html", name=name, version=__version__, look=self, described=_described(self))


def look(run: Run, selection: Selection) -> Look:
    """Select images and read them.

    The tiles show the columns that the selection reads.

    Raises:
        UserError: The selection is not valid (`manifests.selection.select`), or a part of a table is damaged.
    """
    verdict = run.verdict()
    selected = select(run, selection, verdict)
    choice = Choice("", selected.ids["id"].to_list(), columns=selected.columns)
    (gallery,) = fill(Seen(run, verdict), [choice])
    return Look(run, selection, selected.fitting, gallery)


def _described(look: Look) -> str:
    """Return a sentence about what is shown."""
    shown, selection = len(look.gallery.tiles), look.selection
    order = f"by {selection.sort}{', largest first' if selection.descending else ''}" if selection.sort else "by id"
    which = "all of them" if shown == look.fitting else f"{shown:,} are shown"
    which += ", a random choice" if shown < look.fitting and selection.seed is not None else ""
    return f"{look.fitting:,} images fit; {which}, {order}."
