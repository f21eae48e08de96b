"""The header X-Robots-Tag in its forms."""

from __future__ import annotations

import pytest

from pipeline.stages.download.fetching.opt_out import refusal


@pytest.mark.parametrize(
    ("tags", "directive"),
    [
        (["noai"], "noai"),
        (["NoAI, noimageai"], "noai"),
        (["nofollow, noimageai"], "noimageai"),
        (["nofollow", "noai"], "noai"),
        (["vl3syn: noai"], "noai"),
        (["img2dataset: noai"], "noai"),
        (["other-robot: noindex, noai"], None),
        (["other-robot: noindex, vl3syn: nofollow, noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["max-snippet: 20, noai"], "noai"),
        (["nofollow, noaim"], None),
        (["", ",", ":"], None),
        ([], None),
    ],
)
def test_directive_for_us_is_respected(tags: list[str], directive: str | None) -> None:
    assert refusal(tags, {"vl3syn", "img2dataset"}, ("noai", "noimageai")) == directive
