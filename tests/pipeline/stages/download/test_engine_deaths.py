"""Parts whose process dies, is missing, or has no room on the disk."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from pipeline.stages.download.engine import Engine
from tests.kills import alive, processes
from tests.pipeline.stages.download.conftest import MakeSettings
from tests.web_server import WebServer


def test_child_that_is_killed_is_started_again(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VL3SYN_TEST", str(tmp_path))

    def kill() -> None:
        first = _kill_when_asked(web, "hang/b", tmp_path)
        web.mended = True
        killed.append(first)

    killed: list[int] = []
    killer = threading.Thread(target=kill)
    killer.start()
    with Engine(make_settings(timeout=60)) as engine:
        outcomes = engine.download(0, [web.url("hang/b"), web.url("image/c")], tmp_path).outcomes
        killer.join()
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert not set(_children(tmp_path)) & set(killed)
    assert _children(tmp_path) == []


@pytest.mark.thorough
def test_child_that_is_killed_twice_is_an_error_of_the_run(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VL3SYN_TEST", str(tmp_path))

    def kill_twice() -> None:
        for count in (1, 2):
            _kill_when_asked(web, "hang/b", tmp_path, count)

    killer = threading.Thread(target=kill_twice)
    killer.start()
    with Engine(make_settings(timeout=60)) as engine, pytest.raises(UserError, match=r"twice, by signal 9 \(Killed\)"):
        engine.download(0, [web.url("hang/b")], tmp_path)
    killer.join()


_CRASHING = """#!{python}
import os, sys
import cv2
decode, broken = cv2.imdecode, False
def imdecode(data, flags):
    global broken
    if broken or b"deadly" in data.tobytes():
        os.kill(os.getpid(), 11)
    if b"greedy" in data.tobytes():
        os.kill(os.getpid(), 9)
    broken = b"breaking" in data.tobytes()
    return decode(data, flags)
cv2.imdecode = imdecode
code, sys.argv = sys.argv[3], sys.argv[3:]
exec(code)
"""
"""A Python whose decoder ends the process: at some images, or at whatever comes after some."""

CRASHED = "cannot be resized: the process ended, by signal 11 (Segmentation fault)"
KILLED = "cannot be resized: the process ended, by signal 9 (Killed)"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("names", "errors"),
    [
        (["a", "deadly", "b", "deadly2", "c"], [None, CRASHED, None, CRASHED, None]),
        (["breaking", "a", "b"], [None, None, None]),
        (["a", "greedy", "b"], [None, KILLED, None]),
    ],
    ids=["crash", "later crash", "kill"],
)
def test_only_the_image_that_crashes_the_resizer_is_an_error(
    names: list[str],
    errors: list[str | None],
    web: WebServer,
    make_settings: MakeSettings,
    download_python: str,
    tmp_path: Path,
) -> None:
    python = tmp_path / "python"
    python.write_text(_CRASHING.format(python=download_python))
    python.chmod(0o700)
    with Engine(make_settings(longest=41, python=str(python))) as engine:
        outcomes = engine.download(0, [web.url(f"image/{name}") for name in names], tmp_path).outcomes
    assert [outcome.error for outcome in outcomes] == errors
    assert [outcome.retry for outcome in outcomes] == [error == KILLED for error in errors]


def test_child_ends_with_its_parent(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VL3SYN_TEST", str(tmp_path))
    settings = make_settings(timeout=600)
    if (parent := os.fork()) == 0:
        Engine(settings).download(0, [web.url("hang/a")], tmp_path)
        os._exit(0)
    _wait_for(lambda: web.asked["hang/a"] == 1)
    children = [pid for pid in _children(tmp_path) if pid != parent]
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    _wait_for(lambda: not any(map(alive, children)))


def test_missing_img2dataset_is_said_in_one_line(make_settings: MakeSettings, tmp_path: Path) -> None:
    with Engine(make_settings(python=sys.executable)) as engine, pytest.raises(UserError) as error:
        engine.download(0, ["http://127.0.0.2/"], tmp_path)
    assert str(error.value) == (
        f"download: {sys.executable}: img2dataset cannot be imported (No package metadata was found for img2dataset); "
        "run `make setup-download`, or give the Python of another environment, engine: {python: …}"
    )


def test_missing_python_is_said_in_one_line(make_settings: MakeSettings, tmp_path: Path) -> None:
    with Engine(make_settings(python="/no/python")) as engine, pytest.raises(UserError) as error:
        engine.download(0, ["http://127.0.0.2/"], tmp_path)
    assert str(error.value).startswith("download: /no/python: No such file or directory; run `make setup-download`")


def test_program_that_is_no_python_is_said_in_one_line(make_settings: MakeSettings, tmp_path: Path) -> None:
    with Engine(make_settings(python="/bin/false")) as engine, pytest.raises(UserError) as error:
        engine.download(0, ["http://127.0.0.2/"], tmp_path)
    assert str(error.value).startswith("download: /bin/false: exit code 1; run `make setup-download`")


@pytest.mark.thorough
@pytest.mark.parametrize("images", [1, 300], ids=["at its end", "within it"])
def test_full_disk_is_an_error_of_the_run_not_of_the_rows(
    images: int, web: WebServer, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """img2dataset prints what its writer raises, and continues."""
    (tmp_path / "00000.tar").symlink_to("/dev/full")
    with Engine(make_settings()) as engine, pytest.raises(OSError, match="No space left on device"):
        engine.download(0, [web.url(f"image/{number}") for number in range(images)], tmp_path)


@pytest.mark.thorough
def test_disk_that_was_full_for_a_while_is_one_as_well(
    web: WebServer, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """The rest of the part is written, and its end, but rows are missing and the tar is broken."""
    tar = tmp_path / "00000.tar"
    os.mkfifo(tar)

    def read_with_a_gap() -> None:
        with tar.open("rb", buffering=0) as reader:
            reader.read(1)
        _wait_for(lambda: sum(web.asked.values()) > 200)
        descriptor = os.open(tar, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        with open(descriptor, "rb") as reader:
            reader.read()

    reading = threading.Thread(target=read_with_a_gap)
    reading.start()
    urls = [web.url("hang/a"), *(web.url(f"image/{number}") for number in range(300))]  # the hanging one ends the part
    with Engine(make_settings(timeout=5)) as engine, pytest.raises(BrokenPipeError):
        engine.download(0, urls, tmp_path)
    reading.join()


def _children(mark: Path) -> list[int]:
    return [pid for pid, line in processes(str(mark)) if "fetching.child" in line and alive(pid)]


def _kill_when_asked(web: WebServer, path: str, mark: Path, count: int = 1) -> int:
    """Kill the child that asks for a path, as soon as it was asked for so often; return the child."""
    _wait_for(lambda: web.asked[path] == count)
    (child,) = _children(mark)
    os.kill(child, signal.SIGKILL)
    return child


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
