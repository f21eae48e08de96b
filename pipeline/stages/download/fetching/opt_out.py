"""Pages and images whose owners do not want them in data sets say so in the header X-Robots-Tag."""

from __future__ import annotations

from collections.abc import Collection, Iterable

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives with a colon of their own. Before other colons stands the name of a crawler."""


def refusal(tags: Iterable[str], agents: Collection[str], directives: Collection[str]) -> str | None:
    """Return the directive by which an answer may not be used, else None.

    Args:
        tags: Values of the header X-Robots-Tag, such as `noai, noimageai` or `some-crawler: noindex, noai`.
        agents: Lower-case names of crawlers that count as us.
        directives: The directives that are respected, in lower case.
    """
    for tag in tags:
        agent = None
        for piece in tag.lower().split(","):
            before, colon, after = (text.strip() for text in piece.partition(":"))
            if colon and before in _WITH_VALUE:
                continue
            if colon:
                agent = before
            directive = after if colon else before
            if directive in directives and (agent is None or agent in agents):
                return directive
    return None
