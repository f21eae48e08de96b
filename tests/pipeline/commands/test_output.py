"""Tables on narrow terminals."""

from __future__ import annotations

import pytest
from rich.console import Console

from pipeline.commands.output import print_rows


@pytest.mark.parametrize("width", [40, 60, 200])
def test_table_too_wide_is_folded_and_loses_no_digit(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [10_200_300_400 + n for n in range(5)]
    print_rows("sizes", [f"size {n}" for n in range(5)], [numbers], to=Console(width=width))
    printed = capsys.readouterr().out
    digits = sum(character.isdigit() for character in printed.split("─")[-1])
    assert digits == 5 * len("10200300400")
