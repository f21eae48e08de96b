"""Start a server on a free port for one actor. The server ends with the actor, even if the actor is killed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Self

from captioners.engines.http_exchange import FAILURES, get
from core.errors import UserError
from core.secrets import redact

_POLL = 0.5  # seconds
_ONE_TRY = 5.0  # seconds to wait for one answer
_STOP = 20.0  # seconds that a server may take to exit after SIGTERM

# The keeper starts the server in its own process group. This process holds the other end of the keeper's standard
# input: when it dies, by any signal, the pipe closes, and the keeper ends the group. The keeper forks first, because
# Ray kills the children of a finished actor, and would kill the keeper before it has stopped the server.
_KEEPER = """
import os, signal, subprocess, sys
if os.fork():
    os._exit(0)
os.setsid()
server = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
print(server.pid, flush=True)
sys.stdin.read()
for sent, patience in ((signal.SIGTERM, float(sys.argv[1])), (signal.SIGKILL, None)):
    try:
        os.killpg(server.pid, sent)
        server.wait(patience)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
"""


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        url: Its address, including `/v1`.
    """

    url: str
    _keeper: subprocess.Popen[bytes]
    _log: IO[bytes]
    _port: Port

    def stop(self) -> None:
        """Stop the server, and wait until it has ended."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.stdout.read()  # returns when the keeper ends
        self._keeper.wait()
        self._log.close()
        self._port.release()


@dataclass
class Port:
    """A free port of this machine that no other `Port` has, even before a server listens there.

    A server listens only when it has loaded its model, minutes later. Meanwhile the next actor of the machine may be
    offered the same port, and would take the first server for its own.
    """

    number: int
    _lock: socket.socket | None

    @classmethod
    def take(cls) -> Self:
        """Take a port. It is free again when this process ends, however it ends."""
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                number: int = probe.getsockname()[1]
            if sys.platform != "linux":
                return cls(number, None)
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0vl3syn-port-{number}")  # a name without a file, in the network namespace of the port
            except OSError:
                lock.close()
            else:
                return cls(number, lock)

    def release(self) -> None:
        if self._lock:
            self._lock.close()


def start_server(command: str, model: str, timeout: float, what: str, revision: str | None = None) -> ServerProcess:
    """Start a server and wait until it answers.

    Args:
        command: The command, with `{model}`, `{revision}` and `{port}`; it runs without a shell.
        model: The value of `{model}`.
        timeout: Seconds to wait for the first answer.
        what: Name of the stage, for errors.
        revision: The value of `{revision}`.

    Raises:
        UserError: The program is missing, ends before it answers (with the end of its log), or takes too long.
    """
    port = Port.take()
    values = {"{model}": model, "{revision}": revision or "", "{port}": str(port.number)}
    words = [re.sub("{model}|{revision}|{port}", lambda name: values[name[0]], word) for word in shlex.split(command)]
    if shutil.which(words[0]) is None:
        port.release()
        raise UserError(f"{what}: there is no program {words[0]}; install it, or give its path in `start`")
    log = tempfile.TemporaryFile()
    keeper = subprocess.Popen(
        [sys.executable, "-c", _KEEPER, str(_STOP), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
    )
    assert keeper.stdout is not None
    pid = int(keeper.stdout.readline() or 0)
    served = ServerProcess(f"http://127.0.0.1:{port.number}/v1", keeper, log, port)
    try:
        _wait(served, pid, timeout, what, words[0])
    except ValueError:
        served.stop()
        raise
    return served


def _wait(served: ServerProcess, pid: int, timeout: float, what: str, program: str) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            if get(f"{served.url}/models", _ONE_TRY).status // 100 == 2:
                return
        except FAILURES:
            pass
        if not pid or not _runs(pid):
            raise UserError(f"{what}: {program} ended before it answered: {_last_words(served)}")
        time.sleep(_POLL)
    raise UserError(f"{what}: {program} did not answer within {timeout:g} s; give it more (start_timeout)")


def _runs(pid: int) -> bool:
    """Return whether a process runs. A zombie does not count."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        try:
            os.kill(pid, 0)  # no /proc: macOS
        except OSError:
            return False
        return sys.platform != "linux"


def _last_words(served: ServerProcess) -> str:
    served._log.seek(max(0, served._log.seek(0, os.SEEK_END) - 2000))
    return redact(" ".join(served._log.read().decode(errors="replace").split()))[-400:]
