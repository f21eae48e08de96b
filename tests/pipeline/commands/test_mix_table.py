"""The tables of `vl3syn mix` on terminals of any width."""

from __future__ import annotations

import pytest
from rich.console import Console

from model.training.estimates import Estimate
from model.training.forecast import TOTALS, SourceForecast, StageForecast
from pipeline.commands import output
from pipeline.commands.mix_table import Prices, print_mix

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
