"""Jobs in child processes: the same receipts as elsewhere, and what becomes of a child that dies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import UserError
from pipeline.execution.job_result import LocalResult
from pipeline.execution.local_workers import LocalWorkers, ready
from pipeline.execution.receipts import receipt
from tests.kills import alive
from tests.runs import open_run

ROOT = Path(__file__).parents[3]
MakeImages = Callable[..., Path]


def _store(block: pa.Table) -> pa.Table:
    numbers = block["number"].to_pylist()
    if 3 in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    if 5 in numbers:
        raise OSError(errno.ENOSPC, "No space left on device")
    if 6 in numbers:
        raise ZeroDivisionError("a bug")
    print("a line of a library")
    return receipt(len(numbers), errors=numbers.count(4))


def _run(*numbers: list[int]) -> LocalResult:
    with LocalWorkers() as workers:
        return workers.run("numbers", [pa.table({"number": block}) for block in numbers], ready(_store), 2)


def test_receipts_of_all_blocks_are_returned() -> None:
    result = _run([0, 1], [2, 4], [7])
    done = pa.concat_tables(result.receipts)
    assert (sum(done["rows"].to_pylist()), sum(done["errors"].to_pylist())) == (5, 1)
    assert not result.lost
    assert not list(result.untried)


def test_block_that_kills_its_process_is_left_over() -> None:
    result = _run([0], [3], [1], [2])
    assert [block["number"].to_pylist() for block in result.lost] == [[3]]
    assert len(result.receipts) + len(list(result.untried)) == 3


def test_error_of_the_system_is_a_user_error() -> None:
    with pytest.raises(UserError, match="No space left on device"):
        _run([0], [5])


def test_bug_is_raised_with_the_traceback_of_the_child() -> None:
    with pytest.raises(Exception, match=r"in _store[\s\S]*ZeroDivisionError: a bug"):
        _run([6])


def _meet(block: pa.Table) -> pa.Table:
    own, other = (Path(block[name][0].as_py()) for name in ("own", "other"))
    own.touch()
    deadline = time.monotonic() + 20
    while not other.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return receipt(1, errors=int(not other.exists()))


def test_child_computes_two_blocks_at_once(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "ab"]
    blocks = [pa.table({"own": [own], "other": [other]}) for own, other in (files, files[::-1])]
    with LocalWorkers() as workers:
        result = workers.run("meet", blocks, ready(_meet), 1, at_once=2)
    assert [done["errors"].to_pylist() for done in result.receipts] == [[0], [0]]


def _wait(block: pa.Table) -> pa.Table:
    Path(block["file"][0].as_py()).write_text(str(os.getpid()))
    time.sleep(1)
    return receipt(1, 0)


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pyarrow as pa\n"
        "from pipeline.execution.local_workers import LocalWorkers, ready\n"
        "from tests.pipeline.execution.test_local_workers import _wait\n"
        "LocalWorkers().run('wait', [pa.table({'file': [sys.argv[1]]})] * 50, ready(_wait), 2)\n"
    )
    file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", program, str(file)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    child = int(file.read_text())
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


@pytest.fixture
def without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes in which Ray cannot be imported."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.mark.usefixtures("without_ray")
def test_small_index_and_filter_do_without_ray(
    tmp_path: Path, make_images: MakeImages, vl3syn_process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pool = make_images(tmp_path / "pool", 700)
    for command in (("index", "--images", pool), ("filter", "aspect-ratio", "--max", 1.5)):
        done = vl3syn_process(*command, "--run", tmp_path / "run")
        assert done.returncode == 0, done.stderr
    manifest = open_run(tmp_path / "run").manifest().collect()
    sizes = [(20 + number % 37, 20 + number % 23) for number in range(700)]
    kept = sum(max(size) / min(size) <= 1.5 for size in sizes)
    assert manifest["status"].value_counts(sort=True).rows() == [("kept", kept), ("dropped", 700 - kept)]
