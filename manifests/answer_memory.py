"""Remember a model's answers about rows that are not finished yet, so that a kill or a fault asks for none again.

A journal saves finished rows. A row that takes several questions may end between two of them: by a kill, or because the
server stops. Its answers are in the memory, and the next attempt at the row asks only for the others.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from manifests.process import this_process
from manifests.storage import Folder

_PREFIX, _SUFFIX = "answers-", ".jsonl"


class AnswerMemory:
    """Append-only files beside a stage's table, one per process that writes. Each line is an answer, or a finished row.

    When `put` returns, the operating system has the answer: a killed process loses nothing, a power failure may lose
    the last seconds. As with journals, only local folders (including shared ones) support appending. On other file
    systems the memory lasts as long as the process. Its methods may be called from any thread.

    The files of other processes are read once per row, at its first question without an answer. So a row that another
    process has begun and left, killed or failed, goes on with all its answers. What another process puts about the same
    row at the same time is not seen until the row is finished.
    """

    def __init__(self, folder: Folder) -> None:
        """Open the memory of the table in `folder`. Nothing is read or written before the first question."""
        self._folder = Path(folder.path) if folder.local else None
        self._name = f"{_PREFIX}{uuid.uuid4().hex[:8]}-{this_process()}{_SUFFIX}"
        self._lock = threading.Lock()
        self._file: int | None = None
        self._read_to: dict[str, int] = {}
        self._answers: dict[int, dict[str, tuple[int, str]]] = {}
        self._finished: dict[int, int] = {}
        self._begun: set[int] = set()  # rows whose answers by other processes are read

    def get(self, id_: int, key: str) -> str | None:
        """Return the answer to a question about a row; None if it is not known.

        An answer is known if this process has put it, or another one before this process first asked about the row, and
        the row was not finished since.
        """
        with self._lock:
            if id_ not in self._begun and key not in self._answers.get(id_, {}):
                self._read_others()
                self._begun.add(id_)
            return self._answers.get(id_, {}).get(key, (0, None))[1]

    def put(self, id_: int, key: str, text: str) -> None:
        """Save an answer about a row.

        Args:
            id_: The row.
            key: What was asked; unique in the row.
            text: The answer.
        """
        with self._lock:
            self._take(self._write({"id": id_, "key": key, "text": text}))

    def finish(self, ids: Iterable[int]) -> None:
        """Forget the answers about rows that are saved. A row that is asked about again starts anew."""
        with self._lock:
            for id_ in ids:
                self._begun.discard(id_)
                if id_ in self._answers:
                    self._take(self._write({"id": id_}))

    def _take(self, line: Mapping[str, Any]) -> None:
        """Take a line into account. Lines of several files come in any order."""
        id_, at = line["id"], line["at"]
        answers = self._answers.setdefault(id_, {})
        if "key" not in line:
            self._finished[id_] = max(at, self._finished.get(id_, 0))
        elif at > answers.get(line["key"], (0, ""))[0]:
            answers[line["key"]] = (at, line["text"])
        last = self._finished.get(id_, 0)
        for key in [key for key, (written, _) in answers.items() if written <= last]:
            del answers[key]
        if not answers:
            del self._answers[id_]

    def _write(self, line: dict[str, Any]) -> dict[str, Any]:
        line |= {"at": time.time_ns()}
        if self._folder is not None:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._folder / self._name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            data = memoryview(json.dumps(line).encode() + b"\n")
            while data:
                data = data[os.write(self._file, data) :]
        return line

    def _read_others(self) -> None:
        for file in _files(self._folder) if self._folder is not None else ():
            if file.name != self._name:
                for line in self._new_lines(file):
                    self._take(line)

    def _new_lines(self, file: Path) -> Iterator[dict[str, Any]]:
        """Yield the lines that were added to a file. A line that a kill has cut off is left out."""
        start = self._read_to.get(file.name, 0)
        try:
            if file.stat().st_size <= start:
                return
            with file.open("rb") as stream:
                stream.seek(start)
                added = stream.read()
        except FileNotFoundError:  # deleted meanwhile: its rows are stored
            return
        whole = added[: added.rfind(b"\n") + 1]
        self._read_to[file.name] = start + len(whole)
        for line in whole.splitlines():
            if (parsed := _parsed(line)) is not None:
                yield parsed


def delete_answers(folder: Folder) -> None:
    """Delete the memory of a table. Call it when no row of the table is left to compute."""
    for file in _files(Path(folder.path)) if folder.local else ():
        file.unlink(missing_ok=True)


def has_answers(folder: Folder) -> bool:
    """Return whether a table has a memory."""
    return folder.local and any(_files(Path(folder.path)))


def _files(folder: Path) -> list[Path]:
    """Return the files of a memory; no links, pipes or devices of that name."""
    files = folder.glob(f"{_PREFIX}*{_SUFFIX}")
    return sorted(file for file in files if file.is_file() and not file.is_symlink())


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return a line's content; None if it is damaged, as after a power failure."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    if not isinstance(parsed, dict):
        return None
    kinds = {"id": int, "at": int, **({"key": str, "text": str} if "key" in parsed else {})}
    return parsed if all(type(parsed.get(name)) is kind for name, kind in kinds.items()) else None
