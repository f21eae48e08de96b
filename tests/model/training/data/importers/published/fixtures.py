"""A fixture for each format of `vl3syn import`."""

from __future__ import annotations

from collections.abc import Mapping

from tests.model.training.data.importers.published import conversations, moments, regions
from tests.model.training.data.importers.published.layouts import Published

PUBLISHED: Mapping[str, Published] = dict(
    sorted({**conversations.PUBLISHED, **regions.PUBLISHED, **moments.PUBLISHED}.items())
)
