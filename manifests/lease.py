"""The lease of a folder: one driver at a time writes to a run directory or a publication.

The driver that works on a folder keeps a file in it, `lease.json`, with its name and a beat that it renews. A second
driver looks at the file. Clocks of two machines are not compared:

- on the same machine the process is looked up (one that was killed is replaced at once), and the age of the beat;
- the beat of a driver on another machine is watched: if it changes the driver is alive, and if it does not for as long
  as the file says, the driver counts as dead.

Where there are hard links, exactly one of several drivers creates the file. Elsewhere, and to replace a dead driver, a
driver writes its file, waits, and reads it back: the last one that wrote has the lease. If that write takes longer than
the wait, two drivers work until the next beat, when the first one finds another's name and stops.
This costs time, not data: parts are only added, each whole, and of an id's rows the newest count.
"""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from core.errors import UserError
from core.signals import end_main_thread, endable
from manifests.process import is_gone, this_process
from manifests.storage import Folder

FILE = "lease.json"
HEARTBEAT_S, STALE_S = 10.0, 60.0
SETTLE_S = 2.0
"""Seconds between writing and reading back, where a file cannot be created exclusively."""


@dataclass(frozen=True)
class Claim:
    """What a lease file says about its driver.

    Attributes:
        token: Random text, different for each lease.
        host, pid: Name of the machine, and process id, for people.
        process: Name of the process (`manifests.process.this_process`).
        since: When the lease was taken, for people.
        beat: Last sign of life, in seconds of the machine's monotonic clock.
        heartbeat_s: Seconds between two beats.
        stale_s: Seconds without a beat after which the driver counts as dead.
    """

    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    process: str = field(default_factory=this_process)
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    beat: float = 0.0
    heartbeat_s: float = HEARTBEAT_S
    stale_s: float = STALE_S

    @property
    def driver(self) -> str:
        return f"host {self.host}, process {self.pid} since {self.since}"


class Lease:
    """The steps of a driver towards the lease of a folder, and while it holds it.

    Args:
        folder: The folder.
        where: Its path or URL, for the user.
        claim: The driver that wants the lease.
        clock: Seconds of this machine's monotonic clock.

    Attributes:
        watched: What was read first of a driver on another machine; None: there is none.
    """

    watched: Claim | None = None

    def __init__(self, folder: Folder, where: str, claim: Claim, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.where, self.claim, self._clock = folder, where, claim, clock
        self._written: float | None = None  # when the claim was written that has not been read back
        self._watched_since = 0.0

    def step(self) -> float | None:
        """Take one step towards the lease. Return None once it is held, else the seconds to wait before the next step.

        Raises:
            UserError: Another driver is alive; or the lease file is damaged.
        """
        asked, stored = self._clock(), self._read()
        if self._written is not None and stored and stored.token == self.claim.token:
            left = self._written + SETTLE_S - asked
            return left if left > 0 else None
        self._written = None
        if stored is None and self.folder.local:
            return None if self.folder.create_file(FILE, self._beaten()) else 0.0
        if stored is None or self._is_dead(stored, asked):
            self.folder.write(FILE, self._beaten())
            self._written = self._clock()
            return SETTLE_S
        return min(1.0, stored.heartbeat_s / 2)

    def beat(self) -> None:
        """Renew the lease.

        Raises:
            UserError: It is this driver's no longer: another has taken over, or the file was deleted or damaged.
        """
        stored = self._read()
        if stored is None:
            raise UserError(
                f"{self.where}: {FILE} is gone: another command has worked there meanwhile, or somebody deleted it; "
                "this command stops, and what it stored counts"
            )
        if stored.token != self.claim.token:
            raise UserError(
                f"{self.where}: {stored.driver} works on it now, since this process did not give a sign of life for "
                f"{self.claim.stale_s:.0f} s; this command stops, and what it stored counts"
            )
        self.folder.write(FILE, self._beaten())

    def release(self) -> None:
        """Delete the lease file, if it is this driver's."""
        stored = self._read()
        if stored and stored.token == self.claim.token:
            self.folder.delete(FILE)

    def _is_dead(self, other: Claim, asked: float) -> bool:
        gone = is_gone(other.process)
        if other.process == self.claim.process or gone is False:
            age = self._clock() - other.beat
            if 0 <= age < other.stale_s:
                raise self._refusal(other, age)
            return True
        if gone:
            return True
        if self.watched is None:
            self.watched, self._watched_since = other, self._clock()
        if other != self.watched:
            raise self._refusal(other, 0)
        return asked - self._watched_since >= other.stale_s

    def _refusal(self, other: Claim, age: float) -> UserError:
        return UserError(
            f"{self.where} is being worked on by {other.driver}, last seen {age:.0f} s ago: "
            "wait until it has ended, or end it"
        )

    def _beaten(self) -> bytes:
        self.claim = replace(self.claim, beat=self._clock())
        return json.dumps(asdict(self.claim), indent=1).encode()

    def _read(self) -> Claim | None:
        try:
            content = self.folder.read(FILE)
        except (FileNotFoundError, NotADirectoryError):
            if self.folder.local and os.path.islink(f"{self.folder.path}/{FILE}"):
                raise UserError(f"{self.where}/{FILE} is a link to nothing: delete it") from None
            return None
        return _parsed(content, f"{self.where}/{FILE}")


def _parsed(content: bytes, where: str) -> Claim:
    damaged = UserError(f"{where}: no lease of a driver, but damaged: delete it if no other command works there")
    try:
        values = json.loads(content)
        beat, heartbeat_s, stale_s = (float(values[name]) for name in ("beat", "heartbeat_s", "stale_s"))
        token, host, process, since = (str(values[name]) for name in ("token", "host", "process", "since"))
        claim = Claim(token, host, int(values["pid"]), process, since, beat, heartbeat_s, stale_s)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise damaged from error
    if not (math.isfinite(claim.beat) and claim.heartbeat_s > 0 and 0 < claim.stale_s < math.inf):
        raise damaged
    return claim


@contextmanager
def hold(folder: Folder, where: str, say: Callable[[str], None], claim: Claim | None = None) -> Iterator[None]:
    """Hold the lease of a folder, which is created if it is missing. Nothing is left behind afterwards.

    A folder that this user may only read needs none: whatever writes to it will fail.

    Args:
        folder: The folder.
        where: Its path or URL, for the user.
        say: Called with a line for the user while a driver on another machine is watched.
        claim: This driver; None: with the usual times.

    Raises:
        UserError: Another driver works on the folder; its file is damaged; or the lease was lost (`Lease.beat`), which
            ends what the main thread does.
    """
    lease = Lease(folder, where, claim or Claim())
    new = [path for path in (Path(folder.path), *Path(folder.path).parents) if folder.local and not path.exists()]
    lost: list[UserError] = []
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(lease, ended, lost), name="lease", daemon=True)
    with endable():
        try:
            try:
                if _take(lease, say):
                    thread.start()
                    folder.sweep_aside()  # of drivers that were killed while they renewed it
                yield
            finally:
                ended.set()
                if thread.ident:
                    thread.join()  # the last beat may find the lease lost, and raise SystemExit here
        finally:
            with suppress(OSError, UserError):  # a lease that stays is replaced when this process has ended
                lease.release()
            with suppress(OSError):  # a folder in use stays
                for path in new:
                    path.rmdir()
            if lost:
                raise lost[0]


def _take(lease: Lease, say: Callable[[str], None]) -> bool:
    """Wait for the lease; return whether it is held: not if the folder can only be read."""
    told = None  # of which driver the user was told
    try:
        while (wait := lease.step()) is not None:
            if (other := lease.watched) and not told:
                told = other
                say(f"{lease.where}: {other.driver} may be at work on it; watching for up to {other.stale_s:.0f} s")
            time.sleep(wait)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return False
    return True


def _keep(lease: Lease, ended: threading.Event, lost: list[UserError]) -> None:
    """Renew a lease until `ended`. If it is lost, note it and end what the main thread does."""
    while not ended.wait(lease.claim.heartbeat_s):
        try:
            lease.beat()
        except UserError as error:
            lost.append(error)
            return end_main_thread()
        except OSError:  # the store does not answer; the next beat tries again
            pass
