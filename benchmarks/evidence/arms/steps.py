"""Steps whose results stay: a step that is done is not done again, and each says how long it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Steps:
    """The steps of an experiment in a folder. FOLDER/steps/NAME.json says that a step is done, and in what time."""

    folder: Path

    def run(self, name: str, work: Callable[[], Mapping[str, Any] | None]) -> dict[str, Any]:
        """Do a step unless it is done. Return what `work` has returned, and `seconds`.

        A step that was killed is done again: `work` must bear what it has left.
        """
        record = self.folder / "steps" / f"{name}.json"
        if record.is_file():
            _say(f"{name}: done before")
            return read_json(record)
        start = time.perf_counter()
        result = dict(work() or {})
        result["seconds"] = round(time.perf_counter() - start, 1)
        write_json(record, result)
        _say(f"{name}: {result['seconds']:.0f} s")
        return result

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Exit with one line if the folder was begun with other settings: results must not be mixed."""
        file = self.folder / SETTINGS
        if file.is_file():
            begun = read_json(file)
            others = [
                f"{key} {begun.get(key)}, not {value}" for key, value in settings.items() if begun.get(key) != value
            ]
            if others:
                sys.exit(f"{self.folder} was begun with {'; '.join(others)}: give another --work, or the same settings")
        write_json(file, settings)


def _say(line: str) -> None:
    """Print a line as a whole: threads of other steps print too, and `print` writes the end of a line by itself."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def at_once(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads for steps. If the block fails, what has not begun is not done any more."""
    workers = ThreadPoolExecutor(jobs)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)


def raise_failures(steps: Iterable[Future[Any]]) -> None:
    """Raise the failure of a step that has ended; do not wait for the others."""
    for step in steps:
        if step.done():
            step.result()


def read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def write_json(file: Path, content: object) -> None:
    """Write a file that is there as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(json.dumps(content, indent=2) + "\n")
    aside.replace(file)


def call(program: str, *arguments: str, folder: Path, threads: int | None = None) -> None:
    """Run a Python module, or a file that ends in .py, in a folder; its output goes to FOLDER/log.txt.

    It exits with the last lines of the log if that fails.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    run = [program] if program.endswith(".py") else ["-m", program]
    with log.open("a") as out:
        done = subprocess.run(
            [sys.executable, *run, *arguments], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)} failed in {folder}:\n{tail(log)}")


def tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text().splitlines()[-lines:])


def pick(names: Sequence[str], known: Sequence[str], what: str = "arm") -> list[str]:
    """Return the chosen names in the order of the known ones; exit with one line if one is unknown."""
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no {what} {unknown[0]}: choose among {', '.join(known)}")
    return [name for name in known if name in names]
