"""Jobs in child processes: the same receipts as elsewhere, and what becomes of a child that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from ray.data import Dataset

from core.errors import UserError
from pipeline.execution import ray_job
from pipeline.execution.block_feed import BLOCK
from pipeline.execution.index_job import build_index
from pipeline.execution.job_result import LocalResult
from pipeline.execution.local_workers import LocalWorkers, ready
from pipeline.execution.receipts import receipt, reported
from pipeline.execution.runner import prepare
from pipeline.pools.registry import parse_pool
from pipeline.recipe import Recipe
from tests.kills import alive
from tests.pipeline.execution import child_tasks
from tests.runs import open_run

ROOT = Path(__file__).parents[3]
MakeImages = Callable[..., Path]
Vl3syn = Callable[..., subprocess.CompletedProcess[str]]


def _run(*numbers: list[int]) -> LocalResult:
    with LocalWorkers() as workers:
        return workers.run([pa.table({"number": block}) for block in numbers], ready(child_tasks.store), 2)


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
        _run([5])


def test_bug_is_raised_with_the_traceback_of_the_child() -> None:
    with pytest.raises(Exception, match=r"in store[\s\S]*ZeroDivisionError: a bug"):
        _run([6])


def test_block_whose_receipt_is_cut_off_is_left_over() -> None:
    with LocalWorkers() as workers:
        result = workers.run([pa.table({"number": [1]})], ready(child_tasks.die_within_the_receipt), 1)
    assert (len(result.lost), result.receipts) == (1, [])


def test_child_computes_two_blocks_at_once(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "ab"]
    blocks = [pa.table({"own": [own], "other": [other]}) for own, other in (files, files[::-1])]
    with LocalWorkers() as workers:
        result = workers.run(blocks, ready(child_tasks.meet), 1, at_once=2)
    assert [done["errors"].to_pylist() for done in result.receipts] == [[0], [0]]


_PARENT = """
import sys, pyarrow as pa
from pipeline.execution.local_workers import LocalWorkers, ready
from tests.pipeline.execution.child_tasks import wait
with LocalWorkers() as workers:
    workers.run([pa.table({'file': [sys.argv[1]], 'seconds': [100]})] * 50, ready(wait), 2)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_children_end_when_their_parent_is_ended(tmp_path: Path, end: signal.Signals) -> None:
    file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(file)], cwd=ROOT)
    _wait_until(lambda: file.exists() and bool(file.read_text()), 60)
    parent.send_signal(end)
    _wait_until(lambda: parent.poll() is not None, 20)
    ended = parent.poll()
    parent.kill()
    assert ended is not None, "it does not wait for the blocks that are computed"
    child = int(file.read_text())
    _wait_until(lambda: not alive(child), 20)
    assert not alive(child)


def _wait_until(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.thorough
def test_child_whose_parent_has_gone_computes_nothing(tmp_path: Path) -> None:
    """The parent is killed while Python starts in the child, and has sent its blocks."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "if os.environ.get('PARENT') and int(os.environ['PARENT']) != os.getpid():\n"
        f"    open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid()))\n"
        "    while os.getppid() == int(os.environ['PARENT']): time.sleep(0.01)\n"
    )
    program = f"import os\nos.environ['PARENT'] = str(os.getpid())\n{_PARENT}"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "pid")], cwd=ROOT, env=environment)
    started = tmp_path / "child"
    _wait_until(lambda: started.exists() and bool(started.read_text()), 60)
    parent.kill()
    parent.wait()
    child = int(started.read_text())
    _wait_until(lambda: not alive(child), 30)
    assert not alive(child)


def test_error_in_one_child_ends_the_others(tmp_path: Path) -> None:
    begin = time.monotonic()
    long, wrong = [{"file": str(tmp_path / "pid"), "seconds": 100}], [{"file": str(tmp_path / "no" / "folder")}]
    with LocalWorkers() as workers, pytest.raises(UserError, match="No such file or directory"):
        workers.run([pa.Table.from_pylist(long), pa.Table.from_pylist(wrong)], ready(child_tasks.wait), 2)
    assert time.monotonic() - begin < 60


def test_program_of_a_stage_does_not_read_the_blocks() -> None:
    with LocalWorkers() as workers:
        result = workers.run([pa.table({"number": [0]})] * 2, ready(child_tasks.cat), 1)
    assert [done["rows"][0].as_py() for done in result.receipts] == [0, 0]


def test_print_at_the_start_of_python_is_no_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('module load cuda')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert len(_run([0]).receipts) == 1


def test_function_that_cannot_be_pickled_is_left_to_ray() -> None:
    with LocalWorkers() as workers:
        result = workers.run([pa.table({"number": [0]})], ready(lambda block: receipt(1, 0)), 1)
    assert (result.receipts, len(list(result.untried))) == ([], 1)


def test_error_beside_a_child_that_died_is_raised(tmp_path: Path) -> None:
    large = pa.table({"text": ["x" * 70_000]})
    with LocalWorkers() as workers, pytest.raises(UserError, match="No space left on device"):
        workers.run([large] * 3, ready(child_tasks.KillsFirst(tmp_path / "file")), 2)


def _module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let children import a module `slow`, which waits for at most 100 seconds until the file `go` is there."""
    wait = f"import os, time\nend = time.monotonic() + 100\nwhile not os.path.exists({str(folder / 'go')!r})"
    (folder / "slow.py").write_text(f"{wait} and time.monotonic() < end:\n    time.sleep(0.01)\n{text}")
    monkeypatch.syspath_prepend(str(folder))


def test_jobs_wait_for_the_import_or_run_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _module(tmp_path, monkeypatch, "time.sleep(0.5)\nend_of_import = 1\n")
    begin = time.monotonic()
    with LocalWorkers() as workers:
        workers.preload(["slow"], 1)
        workers.run([pa.table({"file": [str(tmp_path / "go")]})], ready(child_tasks.touch), 1, preloaded=False)
        result = workers.run([pa.table({"number": [0]})], ready(child_tasks.has_slow), 1)
    assert result.receipts[0]["errors"].to_pylist() == [0]
    assert time.monotonic() - begin < 60, "the first job did not wait for the import"


def test_end_does_not_wait_for_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _module(tmp_path, monkeypatch, "")
    begin = time.monotonic()
    with LocalWorkers() as workers:
        workers.preload(["slow"], 1)
        workers.run(
            [pa.table({"file": [str(tmp_path / "pid")], "seconds": [0]})],
            ready(child_tasks.wait),
            1,
            preloaded=False,
        )
    assert not alive(int((tmp_path / "pid").read_text()))
    assert time.monotonic() - begin < 60


def test_missing_module_is_left_to_the_job() -> None:
    with LocalWorkers() as workers:
        workers.preload(["no_such_module"], 1)
        assert len(workers.run([pa.table({"number": [0]})], ready(child_tasks.store), 1).receipts) == 1


@pytest.mark.usefixtures("engine")
def test_children_end_before_ray_gets_a_job(tmp_path: Path, make_images: MakeImages) -> None:
    pool = parse_pool({"images": str(make_images(tmp_path / "pool", 3))})
    run = prepare(Recipe(name="t", pool=pool, steps=()), str(tmp_path / "run"))
    with LocalWorkers() as workers:
        wait = pa.table({"file": [str(tmp_path / "pid")], "seconds": [0]})
        workers.run([wait], ready(child_tasks.wait), 1)
        child = int((tmp_path / "pid").read_text())
        assert alive(child)
        assert build_index(run, pool, pool.listing(), print, workers).computed == 3
        assert not alive(child)


@pytest.mark.usefixtures("engine")
def test_seconds_of_a_job_are_without_the_start_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_job, "start_ray", lambda: time.sleep(3))

    def job(dataset: Dataset, alone: bool = False) -> Dataset:
        return ray_job.map_blocks(dataset, reported, fn_kwargs={"call": lambda block: receipt(block.num_rows, 0)})

    begin = time.perf_counter()
    stats = ray_job.run_job([pa.table({"number": [0]})], job, before=LocalResult([reported_receipt()], seconds=100))
    assert (stats.rows, 100 < stats.seconds < 100 + time.perf_counter() - begin - 3) == (3, True)


def reported_receipt() -> pa.Table:
    """The receipt of a block of two rows, as a local worker returns it."""
    return reported(pa.table({"number": [0, 0], BLOCK: [0, 0]}), lambda block: receipt(2, 0))


@pytest.fixture
def without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes in which Ray cannot be imported."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("commands", [1, pytest.param(2, marks=pytest.mark.thorough)], ids=["run", "index, filter"])
def test_small_run_does_without_ray(
    tmp_path: Path,
    make_images: MakeImages,
    vl3syn_process: Vl3syn,
    commands: int,
) -> None:
    pool = make_images(tmp_path / "pool", 700)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"pool: {{images: {pool}}}\nstages: [{{stage: aspect_ratio, keep: {{max: 1.5}}}}]\n")
    to = ("--run", tmp_path / "run")
    single = [("index", *to, "--images", pool), ("filter", "aspect-ratio", *to, "--max", 1.5)]
    for call in [("run", recipe, *to)] if commands == 1 else single:
        done = vl3syn_process(*call)
        assert done.returncode == 0, done.stderr
    manifest = open_run(tmp_path / "run").manifest().collect()
    sizes = [(20 + number % 37, 20 + number % 23) for number in range(700)]
    kept = sum(max(size) / min(size) <= 1.5 for size in sizes)
    assert manifest["status"].value_counts(sort=True).rows() == [("kept", kept), ("dropped", 700 - kept)]


_EARLY = """
import sys
from typing import ClassVar
import pyarrow as pa
from core.stages import ImageStage

class Early(ImageStage):
    name: ClassVar = "early"
    preload: ClassVar = ("slow",)
    writes: ClassVar = pa.schema([pa.field("early", pa.float64())])

    def measure(self, image):
        return {"early": float("slow" in sys.modules)}
"""


@pytest.mark.thorough
@pytest.mark.usefixtures("without_ray")
def test_first_run_of_a_stage_preloads_its_modules(
    tmp_path: Path, make_images: MakeImages, vl3syn_process: Vl3syn
) -> None:
    make_images(tmp_path / "pool", 3)
    imports = tmp_path / "imports"
    (tmp_path / "site" / "early.py").write_text(_EARLY)
    (tmp_path / "site" / "slow.py").write_text(f"open({str(imports)!r}, 'a').write('.')")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"pool: {{images: {tmp_path / 'pool'}}}\nstages: [{{stage: 'early:Early'}}]\n")
    done = vl3syn_process("run", recipe, "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert open_run(tmp_path / "run").facts("early").collect()["early"].to_list() == [1.0] * 3
    before = imports.read_text()
    make_images(tmp_path / "pool", 2, start=3)
    assert vl3syn_process("run", recipe, "--run", tmp_path / "run").returncode == 0
    assert open_run(tmp_path / "run").facts("early").collect().height == 5
    assert imports.read_text() == before, "a run that goes on may have nothing to compute"
