"""The lease of a folder: who gets it, who loses it, and what a lease file may hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UserError
from manifests.lease import FILE, Claim, Lease, hold
from manifests.process import this_process
from manifests.storage import Folder

GONE = (
    "gone: another command has worked there meanwhile, or somebody deleted it; "
    "this command stops, and what it stored counts"
)
ROOT = Path(__file__).parents[2]
HOLDER = """
import select, sys
from manifests.lease import Claim, hold
from manifests.storage import Folder
beat, stale, url = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
try:
    with hold(Folder.at(url), url, print, Claim(heartbeat_s=beat, stale_s=stale)):
        print("held", flush=True)
        while not select.select([sys.stdin], [], [], 0.1)[0]:  # polars' handler of SIGINT restarts a read
            pass
except ValueError as error:
    sys.exit(str(error))
"""


def silent(line: str) -> None:
    pass


@contextmanager
def holder(url: Path | str, beat: float = 10, stale: float = 60) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(beat), str(stale), str(url)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def held(process: subprocess.Popen[str]) -> bool:
    assert process.stdout
    return process.stdout.readline() == "held\n"


def said_at_the_end(process: subprocess.Popen[str]) -> str:
    """What a process that ends by itself prints. `communicate` would close its input, and so end it."""
    process.wait(timeout=60)
    assert process.stderr
    return process.stderr.read()


def elsewhere(**values: object) -> Claim:
    """A driver on another machine."""
    return replace(Claim(host="far", process=f"{uuid.uuid4().hex[:16]}-7-7"), **values)  # type: ignore[arg-type]


def stored(folder: Path) -> dict[str, object]:
    claim: dict[str, object] = json.loads((folder / FILE).read_text())
    return claim


def test_second_driver_is_refused_and_first_undisturbed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with holder(run, beat=0.1) as first:
        assert held(first)
        with pytest.raises(UserError, match=rf"worked on by host .*, process {first.pid} since .*, last seen 0 s"):
            hold(Folder.at(run), str(run), silent).__enter__()
        before = stored(run)["beat"]
        while stored(run)["beat"] == before:
            assert first.poll() is None
            time.sleep(0.01)
        _, errors = first.communicate("", timeout=60)
        assert (first.returncode, errors) == (0, "")
    assert not run.exists()


def test_driver_that_was_killed_is_replaced_at_once(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        assert held(first)
        first.kill()
        first.wait()
        said: list[str] = []
        with hold(Folder.at(tmp_path), str(tmp_path), said.append):
            assert stored(tmp_path)["pid"] == os.getpid()
        assert said == []
    assert list(tmp_path.iterdir()) == []


def test_suspended_driver_stops_when_it_was_replaced(tmp_path: Path) -> None:
    with holder(tmp_path, beat=0.1, stale=1) as first:
        assert held(first)
        first.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        with hold(Folder.at(tmp_path), "RUN", silent):
            first.send_signal(signal.SIGCONT)
            errors = said_at_the_end(first)
            assert first.returncode == 1
            assert f"process {os.getpid()} since" in errors
            assert "this command stops, and what it stored counts" in errors
            assert errors.count("\n") == 1
            assert stored(tmp_path)["pid"] == os.getpid()


def test_driver_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as first:
        assert held(first)
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=60) != 0
    assert list(tmp_path.iterdir()) == []


def test_driver_that_fails_leaves_nothing(tmp_path: Path) -> None:
    run = tmp_path / "new" / "run"
    with pytest.raises(ZeroDivisionError), hold(Folder.at(run), str(run), silent):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_driver_whose_lease_file_is_deleted_stops(tmp_path: Path) -> None:
    with holder(tmp_path, beat=0.1) as first:
        assert held(first)
        (tmp_path / FILE).unlink()
        errors = said_at_the_end(first)
        assert (first.returncode, errors.strip()) == (
            1,
            f"{tmp_path}: {FILE} is {GONE}",
        )


def test_loss_that_the_last_beat_finds_is_told(tmp_path: Path) -> None:
    """The beat reads while the main thread has left the block already, and waits for it."""
    other, pipe, file = tmp_path / "other", tmp_path / "pipe", tmp_path / FILE
    other.write_text(json.dumps(vars(elsewhere())))
    os.mkfifo(pipe)
    main, reading = threading.main_thread().ident or 0, threading.Event()

    def answer() -> None:
        with file.open("w") as read:  # when the beat has opened it
            reading.set()
            while all(frame.name != "join" for frame in traceback.extract_stack(sys._current_frames()[main])):
                time.sleep(0.01)
            content = other.read_text()
            other.replace(file)
            read.write(content)

    def work() -> None:
        pipe.replace(file)
        thread.start()
        assert reading.wait(60)

    thread = threading.Thread(target=answer)
    with (
        pytest.raises(UserError, match=r"host far, process .* works on it now"),
        hold(Folder.at(tmp_path), "RUN", silent, Claim(heartbeat_s=0.5)),
    ):
        work()
    thread.join()


def test_lease_is_renewed_while_the_main_thread_computes(tmp_path: Path) -> None:
    import polars as pl

    with hold(Folder.at(tmp_path), "RUN", silent, Claim(heartbeat_s=0.05)):
        before = stored(tmp_path)["beat"]
        for _ in range(200):
            pl.select(pl.int_range(3_000_000).hash().sort())
            if stored(tmp_path)["beat"] != before:
                return
    pytest.fail("the beat did not change")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"null", b"[]", b"{}", b"[" * 100_000, b"\0" * 500],
    ids=["empty", "no text", "null", "list", "no keys", "deep", "zeros"],
)
def test_damaged_lease_file_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=f"^RUN/{FILE}: no lease of a driver, but damaged: delete it if ") as error:
        hold(Folder.at(tmp_path), "RUN", silent).__enter__()
    assert "\n" not in str(error.value)
    assert (tmp_path / FILE).read_bytes() == content


@pytest.mark.parametrize(
    "values", [{"stale_s": "soon"}, {"stale_s": -1}, {"stale_s": float("nan")}, {"beat": None}, {"pid": []}], ids=str
)
def test_lease_file_with_a_wrong_value_is_refused(values: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({**vars(elsewhere()), **values}))
    with pytest.raises(UserError, match="no lease of a driver, but damaged"):
        hold(Folder.at(tmp_path), "RUN", silent).__enter__()


def test_lease_file_that_is_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a link to nothing: delete it"):
        hold(Folder.at(tmp_path), "RUN", silent).__enter__()


def test_dead_driver_of_a_later_version_is_replaced(tmp_path: Path) -> None:
    """Its times count, and what is not known of it does not."""
    (tmp_path / FILE).write_text(json.dumps({**vars(elsewhere(heartbeat_s=0.1, stale_s=0.3)), "later": [1]}))
    said: list[str] = []
    with hold(Folder.at(tmp_path), "RUN", said.append):
        assert stored(tmp_path)["pid"] == os.getpid()
    assert len(said) == 1
    assert said[0].startswith("RUN: host far, process ")


def test_driver_on_another_machine_that_renews_is_alive(tmp_path: Path) -> None:
    far = Lease(Folder.at(tmp_path), "RUN", elsewhere(heartbeat_s=0.2))
    assert far.step() is None
    ended = threading.Event()

    def beats() -> None:
        while not ended.wait(0.2):
            far.beat()

    thread = threading.Thread(target=beats)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"RUN is being worked on by host far, process .* last seen 0 s ago"):
            hold(Folder.at(tmp_path), "RUN", silent).__enter__()
    finally:
        ended.set()
        thread.join()


def test_process_id_that_was_given_again_does_not_count(tmp_path: Path) -> None:
    machine, pid, start = this_process().split("-")
    beat = time.monotonic()
    for number, process in enumerate((f"{machine}-{os.getppid()}-{int(start) + 1}", f"{machine}-{pid}-1")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / FILE).write_text(json.dumps(vars(Claim(process=process, beat=beat))))
        with hold(Folder.at(folder), "RUN", silent):
            assert stored(folder)["process"] == this_process()


def test_folder_that_can_only_be_read_needs_no_lease(tmp_path: Path) -> None:
    script = f"import os, sys; os.setuid(65534); sys.argv = ['', '10', '60', {str(tmp_path)!r}]\n{HOLDER}"
    if os.getuid():
        pytest.skip("needs a user that may become another one")
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o55)
    preloaded = "import manifests.lease, manifests.storage, json, typing\n" + script
    done = subprocess.run([sys.executable, "-c", preloaded], cwd=ROOT, input="", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(20))
def test_of_two_drivers_in_a_bucket_one_wins(round_: int, bucket: str) -> None:
    url = f"{bucket}/lease-{round_}"
    race(url)
    assert Folder.at(url).files() == []


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(20))
def test_of_two_drivers_in_a_folder_one_wins(round_: int, tmp_path: Path) -> None:
    race(tmp_path)
    assert list(tmp_path.iterdir()) == []


def race(url: Path | str) -> None:
    """Start two drivers; exactly one works and the other one is refused."""
    with holder(url) as first, holder(url) as second:
        lines = [process.stdout.readline() for process in (first, second) if process.stdout]
        assert sorted(lines) == ["", "held\n"]
        winner, loser = (first, second) if lines[0] else (second, first)
        assert "is being worked on by" in loser.communicate(timeout=60)[1]
        winner.communicate("", timeout=60)
        assert (winner.returncode, loser.returncode) == (0, 1)
