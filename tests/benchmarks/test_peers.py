"""The comparison with other tools: the table is what the results give, and all processes of a command are counted."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from peers import table
from peers.command import without
from peers.contender import Contender, differences
from peers.environments import REQUIREMENTS
from peers.measure import measure


def runs(*seconds: float) -> list[dict[str, float]]:
    return [{"seconds": s, "core_seconds": 2 * s, "mib": 1000 + s} for s in seconds]


MEASURED = {
    "date": "2026-11-29",
    "command": "python benchmarks/peers/run.py --write",
    "rounds": 3,
    "machine": "a machine",
}

RESULTS: dict[str, Any] = {
    "works": [
        {
            "work": "aspect ratio",
            "measured": MEASURED,
            "count": 5000,
            "unit": "images",
            "runs": {"vl3syn": runs(2, 4, 5), "Data-Juicer 1.6.1": runs(20, 20, 40), "a loop": runs(1, 1, 1)},
        },
        {
            "work": "download",
            "measured": MEASURED,
            "count": 10,
            "unit": "images",
            "runs": {"img2dataset 1.47.0": runs(5)},
        },
    ],
}

TABLE = """\
2026-11-29, `python benchmarks/peers/run.py --write`, rounds: 3; a machine.

| work | by | seconds | × ours | CPU seconds | × ours | peak memory, MiB | a second |
| --- | --- | --- | --- | --- | --- | --- | --- |
| aspect ratio: 5,000 images | vl3syn | 4.00 (2.00 to 5.00) |  | 8.00 (4.00 to 10.00) |  | 1,004 | 1,250 images |
|  | Data-Juicer 1.6.1 | 20.00 (20.00 to 40.00) | 8.00 | 40.00 (40.00 to 80.00) | 8.00 | 1,020 | 250 images |
|  | a loop | 1.00 (1.00 to 1.00) | 0.25 | 2.00 (2.00 to 2.00) | 0.25 | 1,001 | 5,000 images |
| download: 10 images | img2dataset 1.47.0 | 5.00 (5.00 to 5.00) |  | 10.00 (10.00 to 10.00) |  | 1,005 | 2.0 images |
"""


def test_table_has_medians_and_ratios_within_rounds() -> None:
    assert table.text(RESULTS) == TABLE


def test_work_that_is_measured_again_says_when() -> None:
    again = {**RESULTS["works"][1], "measured": {**MEASURED, "date": "2026-12-01"}}
    results = table.merged(RESULTS, [again])
    assert [work["work"] for work in results["works"]] == ["aspect ratio", "download"]
    assert results["works"][1] == again
    how = "`python benchmarks/peers/run.py --write`, rounds: 3; a machine."
    head = [f"- aspect ratio: 2026-11-29, {how}", f"- download: 2026-12-01, {how}"]
    assert table.text(results).splitlines()[:2] == head
    assert table.merged(None, [again]) == {"works": [again]}


def test_table_takes_the_place_of_the_one_before() -> None:
    document = f"# Title\n{table.BEGIN}an older table\n{table.END}more\n"
    assert table.written(document, RESULTS) == f"# Title\n{table.BEGIN}\n{TABLE}\n{table.END}more\n"
    with pytest.raises(ValueError, match="no <!-- written by"):
        table.written("# Title\n", RESULTS)


def test_document_has_the_table_of_the_stored_results() -> None:
    document = table.DOCUMENT.read_text()
    assert table.written(document, table.stored()) == document


def test_results_that_differ_are_told() -> None:
    ours = {"a.jpg": (1.0, 0.5), "b.jpg": (2.0, 0.5)}
    assert differences(ours, {"b.jpg": (2.0, 0.5), "a.jpg": (1.0, 0.51)}, 0.02) == ""
    assert differences(ours, {"a.jpg": (1.0, 0.5), "b.jpg": (2.1, 0.5)}, 0.02) == "b.jpg: (2.0, 0.5) and (2.1, 0.5)"
    assert "1 images only one of them keeps, such as b.jpg" in differences(ours, {"a.jpg": (1.0, 0.5)}, 0.02)


def test_others_than_the_first_contender_can_be_left_out() -> None:
    a, b, c = (Contender(name, lambda _: [], lambda _: {}) for name in "abc")
    assert without(["b"], [a, b, c]) == [a, c]
    for name in ("a", "d"):
        with pytest.raises(SystemExit, match=f"^--without '{name}': it can leave out b, c$"):
            without([name], [a, b, c])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_process_that_is_left_behind_is_counted(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}], start_new_session=True)"
    assert measure([sys.executable, "-c", parent], tmp_path, {}).core_seconds >= 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_two_processes_is_added(tmp_path: Path) -> None:
    hold = "import time; held = b'x' * (100 << 20); time.sleep(1.5)"
    both = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {hold!r}]); {hold}"
    assert measure([sys.executable, "-c", both], tmp_path, {}).mib >= 200


def test_command_that_fails_ends_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"ended with 1:\nno such image"):
        measure([sys.executable, "-c", "raise SystemExit('no such image')"], tmp_path, dict(os.environ))


@pytest.mark.parametrize("file", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda file: file.stem)
def test_requirements_are_pinned_and_name_no_registry(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert [line for line in lines if line.count("==") != 1 or "/" in line] == []
    assert len(lines) > 5
