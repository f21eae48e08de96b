"""The tables of `vl3syn mix` on terminals of any width."""

from __future__ import annotations

import pytest
from rich.console import Console

from model.training.estimates import Estimate
from model.training.forecast import TOTALS, SourceForecast, StageForecast
from pipeline.commands import output
from pipeline.commands.mix_table import Prices, print_mix, scientific, with_interval

NUMBERS = {name: 1_000_000_000 + 7 * number for number, name in enumerate(TOTALS)}


def stage(names: list[str]) -> StageForecast:
    """A stage whose sources have other totals each."""
    sources = []
    for position, name in enumerate(names):
        totals = {key: Estimate.around(value + 1000 * position, 1e7) for key, value in NUMBERS.items()}
        sources.append(SourceForecast(name, 1 / len(names), 9, 9, 5, totals, (), ()))
    return StageForecast(
        name="first",
        number=1,
        exact=False,
        epochs=1.0,
        steps=Estimate.exactly(12_345),
        rows=Estimate.exactly(98_760),
        packing_efficiency=0.9,
        totals={key: Estimate.around(value, 1e7) for key, value in NUMBERS.items()},
        sources=sources,
    )


@pytest.mark.parametrize("width", [80, 120, 160, 400])
def test_no_number_is_cut_off(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "out", Console(width=width, highlight=False))
    print_mix([stage(["a-rather-long-name-of-a-source", "qa", "films"])], Prices(1, 9000.0, None))
    printed = capsys.readouterr().out
    shown = ["samples", "learned", "text", "vision", "images", "frames", "seconds", "split", "skipped"]
    for position in range(3):
        for name in shown:
            assert f"{NUMBERS[name] + 1000 * position:,} ±1%" in printed, (name, position)
    assert "12,345" in printed
    assert "98,760" in printed
    assert max(map(len, printed.splitlines())) <= width


@pytest.mark.parametrize(
    ("estimate", "small", "printed"),
    [
        (Estimate(0.0139, 0.0, 0.03), True, "0.0139 (0–0.03)"),
        (Estimate(0.0139, 0.01, 0.02), True, "0.0139 (0.01–0.02)"),
        (Estimate(0.5, 0.4, 0.6), True, "0.5 ±20%"),
        (Estimate(107, 97, 107), False, "107 (97–107)"),
        (Estimate(1000, 1000 - 1e-9, 1000 + 1e-9), True, "1,000"),
        (Estimate(0, 0, 24.2), False, "0 ≤24"),
        (Estimate(0, 0, 0.3), False, "0"),
        (Estimate(1e6, 1e6 - 40, 1e6 + 40), False, "1,000,000 ±<0.1%"),
        (Estimate.exactly(3), False, "3"),
    ],
)
def test_interval_is_written_as_wide_as_it_is(estimate: Estimate, small: bool, printed: str) -> None:
    assert with_interval(estimate, small) == printed


def test_uneven_interval_of_flops_has_both_ends() -> None:
    assert scientific(Estimate(2e9, 1e9, 2e9)) == "2.000e+09 (1.0e+09–2.0e+09)"
    assert scientific(Estimate(2e9, 1.9e9, 2.1e9)) == "2.000e+09 ±5%"
    assert scientific(Estimate.exactly(2e9)) == "2.000e+09"
