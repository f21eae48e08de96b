"""The arithmetic of cost: the page has what the script prints, and its numbers follow from those that are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cost import Assumptions, steps, table

PAGE = Path(__file__).parents[2] / "docs/cluster.md"


def test_page_has_the_table_that_the_script_prints() -> None:
    written = PAGE.read_text().partition("<!-- written by benchmarks/cost.py -->\n")[2].partition("\n<!-- end -->")[0]
    assert written == table(Assumptions())


def test_hours_follow_from_rates() -> None:
    done = {step.name: step for step in steps(Assumptions(rows=100e6, first_cuts=0.5, arrive=0.5, clip=1000, gpus=10))}
    clip = done["`clip`"]
    assert (clip.images, clip.gpu_hours) == (25e6, pytest.approx(25e6 / 1000 / 3600))
    assert clip.hours == pytest.approx(max(clip.gpu_hours / 10, clip.core_hours / 1024))
    assert done["`download`"].hours == pytest.approx(50e6 / 1350 / 3600 / 10)


def test_numbers_are_replaced_on_the_command_line() -> None:
    command = [sys.executable, "benchmarks/cost.py", "--short-captions", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| `short_caption` | 7 M | 97 | 23 |" in done.stdout
