"""Charts are small SVGs in the page's colours; the rule is drawn where it cuts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.reporting.charts import histogram, short, sizes

SPREAD = np.linspace(0, 1, 101)
SKEWED = np.array([1.0] * 50 + [10.0] * 10 + [5000.0])


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(str(svg).replace("<svg", '<svg xmlns:xlink="x"', 1))
    return [element.text or "" for element in root.iter("text")]


@pytest.mark.parametrize("values", [SPREAD, SKEWED, np.array([3.0]), np.array([1.0, 2.0]), -SPREAD])
def test_histogram_of_any_values_is_svg_in_css_colours(values: np.ndarray) -> None:
    svg = histogram("a", 'A "label" <', values, values[:1], float(values[0]), "min")
    assert "min" in texts(svg)
    assert 'aria-label="A &#34;label&#34; &lt;"' in svg
    assert not re.search(r"#[0-9a-fA-F]{6}\b", svg), "every colour is a variable"
    assert "http" not in svg
    assert "<style" not in svg
    assert len(svg) < 20_000


@pytest.mark.parametrize("values", [[0.3, 0.1 + 0.2], [1e17], [1e17, 1e17 + 16], [-1e308, 1e308], [5e-324, 1e300]])
def test_values_as_close_or_far_as_numbers_can_be_are_drawn(values: list[float]) -> None:
    svg = histogram("a", "", np.array(values), np.empty(0), None, "")
    assert "nan" not in svg
    assert len(texts(svg)) > 2


@pytest.mark.parametrize(("edge", "arrow"), [(0.5, "min 1"), (1.5, "min 1"), (50.0, "min 1 →"), (-50.0, "← min 1")])
def test_threshold_far_away_is_an_arrow_at_the_side(edge: float, arrow: str) -> None:
    assert arrow in texts(histogram("a", "", SPREAD, SPREAD[:0], edge, "min 1"))


def test_label_of_a_rule_is_no_formula_and_no_markup() -> None:
    assert "$x$ <b>" in texts(histogram("a", "", SPREAD, SPREAD[:0], 0.5, "$x$ <b>"))


@pytest.mark.parametrize("groups", [1, 12, 20_000])
def test_sizes_of_many_groups_stay_a_small_drawing(groups: int) -> None:
    reached = np.arange(1, groups + 1)
    svg = sizes("a", "", reached, np.minimum(reached, 5), "image")
    assert {"before", "after"} <= set(texts(svg))
    assert len(svg) < 60_000


def test_two_drawings_share_no_ids() -> None:
    drawings = [histogram(name, "", SPREAD, SPREAD[:3], 0.5, "x") for name in ("a", "b")]
    first, second = (set(re.findall(r' id="([^"]*)"', svg)) for svg in drawings)
    assert first
    assert not first & second


@pytest.mark.parametrize(("value", "text"), [(950, "950"), (1200, "1.2k"), (35e6, "35M"), (2e9, "2G")])
def test_counts_on_axes_are_short(value: float, text: str) -> None:
    assert short(value) == text
