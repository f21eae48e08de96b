"""Tables on narrow terminals, and the table of jobs."""

from __future__ import annotations

import pytest
from rich.console import Console

from pipeline.commands.output import print_jobs, print_rows
from pipeline.execution.job_result import JobResult


@pytest.mark.parametrize("width", [40, 60, 200])
def test_table_too_wide_is_folded_and_loses_no_digit(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [10_200_300_400 + n for n in range(5)]
    print_rows("sizes", [f"size {n}" for n in range(5)], [numbers], to=Console(width=width))
    printed = capsys.readouterr().out
    digits = sum(character.isdigit() for character in printed.split("─")[-1])
    assert digits == 5 * len("10200300400")


def test_jobs_have_the_speed_in_what_a_row_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_jobs([JobResult("frames", computed=10, errors=0, stored=0, seconds=3, working=2)], "clip")
    printed = capsys.readouterr().err
    assert "clips/s" in printed
    assert "images" not in printed
