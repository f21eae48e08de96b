"""Drivers of one folder, step by step with a clock of the test's: at most one works, whatever happens."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from manifests.lease import Claim, Lease
from manifests.storage import Folder


def elsewhere() -> Claim:
    """A driver on another machine."""
    return replace(Claim(), process=f"{uuid.uuid4().hex[:16]}-7-7")


@dataclass
class Driver:
    """A driver that a property test drives."""

    lease: Lease
    wakes: float = 0.0
    state: str = "waiting"  # or working, refused, stopped, dead
    looked: float = 0.0

    def act(self, now: float) -> None:
        """Take the step or the beat that is due."""
        if now < self.wakes or self.state not in ("waiting", "working"):
            return
        try:
            if self.state == "working":
                self.lease.beat()
                self.wakes = now + self.lease.claim.heartbeat_s
            elif (wait := self.lease.step()) is None:
                self.state, self.wakes = "working", now + self.lease.claim.heartbeat_s
            else:
                self.wakes = now + wait
        except UserError:
            self.state = "stopped" if self.state == "working" else "refused"
        self.looked = now


Open = Callable[[str], Folder]


def local(folder: str) -> Folder:
    return Folder.at(folder)


def object_store(_: str) -> Folder:
    return Folder.at(f"memory://lease-{uuid.uuid4().hex}")


SUSPENDED = [("start", 0, 0), ("suspend", 0, 30), ("start", 1, 40), ("act", 0, 40)]


@example(moves=SUSPENDED, open_=local)
@example(moves=SUSPENDED, open_=object_store)
@settings(max_examples=40)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["start", "act", "kill", "suspend"]), st.integers(0, 3), st.integers(0, 40)),
        max_size=40,
    ),
    open_=st.sampled_from([local, object_store]),
)
def test_at_most_one_driver_works_whatever_happens(moves: list[tuple[str, int, int]], open_: Open) -> None:
    """Drivers on several machines: each acts when it is due, unless it is killed or suspended for a while."""
    now = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = open_(name)
        drivers: list[Driver] = []
        asleep: dict[int, float] = {}

        def start() -> None:
            drivers.append(Driver(Lease(folder, "RUN", elsewhere(), lambda: now), wakes=now))

        def pass_time(seconds: int) -> None:
            nonlocal now
            for _ in range(seconds):
                now += 1
                for number, driver in enumerate(drivers):
                    if asleep.get(number, 0) <= now:
                        driver.act(now)
                check()

        def check() -> None:
            """Who works and is not suspended has looked at the file within a heartbeat, and found its own name."""
            awake = [n for n, d in enumerate(drivers) if d.state == "working" and asleep.get(n, 0) + 10 < now]
            assert len(awake) <= 1

        for move, which, seconds in moves:
            if move == "start" or which >= len(drivers):
                start()
            elif move == "kill":
                drivers[which].state = "dead"
            elif move == "suspend":
                asleep[which] = now + 5 * seconds
            pass_time(seconds)
        pass_time(270)  # all have been refused or stopped by now, or one works
        working = [driver for driver in drivers if driver.state == "working"]
        assert len(working) <= 1
        assert not [driver for driver in drivers if driver.state == "waiting"]
        if not working:
            start()
            pass_time(70)
            assert drivers[-1].state == "working"
        drivers[-1 if not working else drivers.index(working[0])].lease.release()
        assert folder.files() == []
