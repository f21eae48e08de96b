"""A Ray cluster of several nodes on this machine: a head with its dashboard, and nodes whose GPUs Ray only counts.

Each node is a `ray start --block` in a process group of its own, so that a test ends what it started, and nothing else.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

_PROGRAMS = Path(sys.executable).parent
_STORE = 128 << 20  # bytes of a node's object store


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """A node: the process group of its `ray start --block`.

    Attributes:
        metrics: URL of its metrics, as Prometheus's text.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        self.metrics = f"http://127.0.0.1:{(metrics := free_port())}/metrics"
        command = [*command, f"--metrics-export-port={metrics}"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            self._wait_until_started()
        except BaseException:
            self.end()
            raise

    def _wait_until_started(self) -> None:
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def raylet(self) -> int:
        """Return the process id of its raylet."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                group = int(stat.read_text().rpartition(") ")[2].split()[2])
                name = stat.with_name("cmdline").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            if group == self.process.pid and b"/raylet/raylet" in name.partition(b"\0")[0]:
                return int(stat.parent.name)
        raise ProcessLookupError("the node has no raylet")

    def kill_raylet(self) -> None:
        """Kill the raylet with SIGKILL: the node is lost, its workers end."""
        os.kill(self.raylet(), signal.SIGKILL)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)  # it ends all of its node
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Cluster:
    """A head node on loopback, and nodes that join it. As a context manager it ends all of them.

    Attributes:
        address: Of the head, for RAY_ADDRESS.
        dashboard: URL of the dashboard, for RAY_API_SERVER_ADDRESS.
        environment: That of the nodes, with which drivers and the job client reach the cluster.
        folder: Ray's temporary folder, with `session_latest/logs`.
    """

    def __init__(self, cpus: int = 1, gpus: int = 0, token: bool = True, **environment: str) -> None:
        """Start the head with this many CPUs and counted GPUs; with `token`, Ray's token authentication is on."""
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray puts sockets below it
        self.nodes: list[Node] = []
        self.address = f"127.0.0.1:{(port := free_port())}"
        self.dashboard = f"http://127.0.0.1:{(dashboard := free_port())}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "RAY_TMPDIR": str(self.folder),
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_AUTH_MODE": "token" if token else "disabled",
            "PATH": f"{_PROGRAMS}:{os.environ['PATH']}",
            **environment,
        }
        if token:
            path = self.folder / "token"
            path.touch(0o600)
            path.write_text(secrets.token_hex(32))
            self.environment["RAY_AUTH_TOKEN_PATH"] = str(path)
        options = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        try:
            self.head = self._start(*options, *_resources(cpus, gpus))
        except BaseException:
            self.end()
            raise

    def add(self, cpus: int = 1, gpus: int = 0, without: Path | None = None) -> Node:
        """Start a node that joins the cluster, and return it when it has joined.

        The node sees an empty folder where `without` is: it gets a view of its own of the file system, which only root
        can make.
        """
        view = []
        if without:
            (self.folder / "empty").mkdir(exist_ok=True)
            view = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$2"; shift 2; exec "$@"', "sh"]
            view += [str(self.folder / "empty"), str(without)]
        return self._start(f"--address={self.address}", *_resources(cpus, gpus), view=view)

    def _start(self, *options: str, view: Sequence[str] = ()) -> Node:
        command = [*view, str(_PROGRAMS / "ray"), "start", "--block", "--disable-usage-stats", *options]
        # The default ports may be those of another node on this machine.
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        node = Node(command, self.environment, self.folder / f"node-{len(self.nodes)}")
        self.nodes.append(node)
        return node

    def end(self) -> None:
        """End all nodes, the head last."""
        for node in reversed(self.nodes):
            node.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _resources(cpus: int, gpus: int) -> list[str]:
    return [f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--object-store-memory={_STORE}"]
