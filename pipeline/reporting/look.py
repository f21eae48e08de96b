"""A gallery of a selection of images, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manifests.run import Run
from manifests.selection import Selection, select
from manifests.version import __version__
from pipeline.pools.registry import noun_of
from pipeline.reporting.choice import Choice, Seen
from pipeline.reporting.galleries import Gallery, fill
from pipeline.reporting.page import render


@dataclass(frozen=True)
class Look:
    """A selection with its pictures.

    Attributes:
        run: The run.
        selection: What was asked for.
        fitting: Number of rows that fit, also those beyond the limit.
        gallery: The images that are shown.
    """

    run: Run
    selection: Selection
    fitting: int
    gallery: Gallery

    @property
    def noun(self) -> str:
        """What a row of the run is: `image`, `film` or `clip`."""
        return noun_of(self.run)

    def page(self) -> str:
        """Return the page.

        Raises:
            UserError: A package of the extra `report` is missing.
        """
        name = str(self.run.recipe.get("name") or "run")
        return render("look.html", name=name, version=__version__, look=self, described=_described(self))


def look(run: Run, selection: Selection, columns: Sequence[str] = ()) -> Look:
    """Select images and read them.

    Args:
        run: The run.
        selection: Which images.
        columns: Columns that the tiles show beside those that the selection reads.

    Raises:
        UserError: The selection is not valid (`manifests.selection.select`), there is no such column, or a part of a
            table is damaged.
    """
    verdict = run.verdict()
    selected = select(run, selection, verdict)
    choice = Choice("", selected.ids["id"].to_list(), columns=tuple(dict.fromkeys([*selected.columns, *columns])))
    (gallery,) = fill(Seen(run, verdict), [choice])
    return Look(run, selection, selected.fitting, gallery)


def _described(look: Look) -> str:
    """Return a sentence about what is shown."""
    shown, selection = len(look.gallery.tiles), look.selection
    chosen = ", chosen at random" if selection.seed is not None else ""
    which = f"{shown:,} of them are shown{chosen}" if shown < look.fitting else "all are shown"
    order = f", by {selection.sort}{', the largest first' if selection.descending else ''}" if selection.sort else ""
    return f"{look.fitting:,} {look.noun}s fit; {which}{order}."
