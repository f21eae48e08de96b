"""Which error is one line and which a traceback: by its type, on the command line and from a worker."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from core.errors import UserError
from core.stages import LoadedStage
from manifests import open_run
from manifests.schemas import column
from pipeline.stages.registry import stage_class
from tests.kills import end, processes
from tests.runs import run_here, run_stages_on_ray

Command = Callable[..., subprocess.CompletedProcess[str]]
MakeImages = Callable[..., Path]
BROADCAST = "ValueError: operands could not be broadcast together with shapes (3,) (4,)"

# In every process of the command's: one function of ours has a bug, as numpy tells it.
SITE = """
import numpy
import {module} as module

def buggy(*_, **__):
    return numpy.zeros(3) + numpy.zeros(4)

module.{name} = buggy
"""


@pytest.fixture
def bug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """`bug_in(module, function)` for the commands that follow."""

    def put(module: str, name: str) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site/sitecustomize.py").write_text(SITE.format(module=module, name=name))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.getcwd()}")

    return put


@pytest.fixture
def indexed(tmp_path: Path, make_images: MakeImages, engine: None) -> Path:
    run_here({"pool": {"images": str(make_images(tmp_path / "pool", 3))}, "stages": []}, tmp_path / "run")
    return tmp_path / "run"


def test_bug_of_a_stage_shows_its_traceback_and_stores_no_row(
    indexed: Path, vl3syn_process: Command, bug_in: Callable[[str, str], None]
) -> None:
    bug_in("filters.hashes", "content_hash")
    done = vl3syn_process("filter", "hashes", "--run", indexed)
    assert done.returncode == 1
    assert "Traceback (most recent call last):" in done.stderr
    assert BROADCAST in done.stderr
    assert "sitecustomize.py" in done.stderr, "the place in the worker"
    assert not list((indexed / "stages").glob("hashes*/part-*"))
    assert open_run(indexed).recipe["stages"] == [], "as it was before the command"


def test_bug_of_a_command_shows_its_traceback(
    indexed: Path, vl3syn_process: Command, bug_in: Callable[[str, str], None]
) -> None:
    bug_in("manifests.run", "evaluate_rules")
    done = vl3syn_process("funnel", indexed)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.strip().endswith(BROADCAST)


class Failing(LoadedStage):
    """A stage that fails as it is told."""

    name: ClassVar = "failing"
    reads: ClassVar = ("key",)
    writes: ClassVar = pa.schema([column("length", pa.int32(), "of the key", 0)])
    how: str
    where: str = "call"

    def load(self) -> Any:
        if self.where == "load":
            self._fail()
        return self

    def __call__(self, batch: pa.Table) -> pa.Table:
        self._fail()
        return batch

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        if self.where == "arrival":
            self._fail()

    def _fail(self) -> None:
        if self.how == "bug":
            np.zeros(3) + np.zeros(4)
        if self.how == "user":
            raise UserError("the scale of the head is not known; give `scale`")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/part")


@pytest.fixture
def failing(engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"failing": Failing}
    monkeypatch.setattr("pipeline.recipe_file.stage_class", lambda name: known.get(name) or stage_class(name))


def _run(tmp_path: Path, make_images: MakeImages, how: str, where: str) -> None:
    pool = {"images": str(make_images(tmp_path / "pool", 3))}
    run_stages_on_ray({"pool": pool, "stages": [{"stage": "failing", "how": how, "where": where}]}, tmp_path / "run")


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("where", ["load", "call"])
def test_user_error_in_a_worker_becomes_one_line(tmp_path: Path, make_images: MakeImages, where: str) -> None:
    with pytest.raises(UserError) as raised:
        _run(tmp_path, make_images, "user", where)
    assert str(raised.value) == "the scale of the head is not known; give `scale`"


@pytest.mark.usefixtures("failing")
def test_full_disk_of_a_worker_is_a_one_line_error(tmp_path: Path, make_images: MakeImages) -> None:
    with pytest.raises(UserError) as raised:
        _run(tmp_path, make_images, "full", "call")
    assert str(raised.value) == "[Errno 28] No space left on device: '/data/part'"


@pytest.mark.usefixtures("failing")
def test_actor_that_fails_to_start_is_a_bug_and_loses_no_row(tmp_path: Path, make_images: MakeImages) -> None:
    from ray.exceptions import RayActorError

    with pytest.raises(RayActorError) as raised:
        _run(tmp_path, make_images, "bug", "arrival")
    assert "test_errors.py" in str(raised.value)
    assert BROADCAST in str(raised.value)
    assert not (tmp_path / "run/stages").exists() or not list((tmp_path / "run/stages").glob("failing-*/part-*"))


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("where", ["load", "call"])
def test_bug_in_a_worker_shows_its_traceback(tmp_path: Path, make_images: MakeImages, where: str) -> None:
    from ray.exceptions import RayTaskError

    with pytest.raises(RayTaskError) as raised:
        _run(tmp_path, make_images, "bug", where)
    assert "test_errors.py" in str(raised.value)
    assert str(raised.value).strip().endswith(BROADCAST)


def test_missing_file_of_the_user_is_a_one_line_error(tmp_path: Path, vl3syn: Command) -> None:
    (tmp_path / "file").touch()
    done = vl3syn("index", "--run", tmp_path / "file/run", "--images", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == f"vl3syn: {tmp_path}/file/run: is not a folder, or lies in a file: name another folder"


def test_number_of_a_recipe_with_5000_digits_is_a_one_line_error(tmp_path: Path, vl3syn: Command) -> None:
    (tmp_path / "recipe.yaml").write_text(f"name: {'9' * 5000}\n")
    done = vl3syn("run", tmp_path / "recipe.yaml", "--run", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr == f"vl3syn: {tmp_path}/recipe.yaml: not YAML: line 1, column 7: a number of 5,000 characters\n"


def test_object_store_without_an_answer_is_a_one_line_error(vl3syn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    done = vl3syn("funnel", "s3://pool/run")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "vl3syn: When getting information for key 'run/recipe.yaml' in bucket 'pool': AWS Error NETWORK"
    )


def test_object_store_without_a_region_is_a_one_line_error(vl3syn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    done = vl3syn("funnel", "s3://pool/run")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("vl3syn: When resolving region for bucket 'pool'")


def test_run_without_a_name_is_a_one_line_error(vl3syn: Command) -> None:
    done = vl3syn("funnel", "")
    assert done.returncode == 1
    assert done.stderr == "vl3syn: an empty path: name a file or folder; . is the current folder\n"


@pytest.mark.slow
def test_ray_that_does_not_start_in_time_is_a_one_line_error(tmp_path: Path, make_images: MakeImages) -> None:
    """Its raylet is stopped as soon as it runs, as if it had no CPU: Ray gives up after 30 s."""
    mark = f"VL3SYN_TEST={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    stage = "{stage: hashes, resources: {actors: 1}}"  # asks for Ray
    (tmp_path / "recipe.yaml").write_text(f"pool: {{images: {make_images(tmp_path / 'pool', 3)}}}\nstages: [{stage}]\n")
    command = [sys.executable, "-m", "pipeline", "run", tmp_path / "recipe.yaml", "--run", tmp_path / "run"]
    started = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, name: value},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while started.poll() is None and time.monotonic() < deadline:
            if raylets := [pid for pid, words in processes(mark) if "/raylet " in words]:
                os.kill(raylets[0], signal.SIGSTOP)
                break
            time.sleep(0.01)
        said = started.communicate(timeout=120)[1]
    finally:
        end(mark)
    assert started.returncode == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1] == (
        "vl3syn: Ray did not start on this machine (The current node timed out during startup. This could happen "
        "because some of the raylet failed to startup or the GCS has become overloaded.); what is stored stays: see "
        "whether memory, disk and CPU are free, then run again to go on"
    )
