"""Downloads parts: a list of URLs becomes a tar with the images' bytes, and an outcome for each URL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Self

import pyarrow as pa

from core.errors import UserError
from core.text import not_unicode
from pipeline.stages.download.child_process import ChildDiedError, ChildProcess, find_python
from pipeline.stages.download.fetching.tar_writer import MAX_ROWS
from pipeline.stages.download.outcomes import Outcome, read_outcomes
from pipeline.stages.download.settings import DownloadSettings


@dataclass(frozen=True)
class Downloaded:
    """A part that was downloaded.

    Attributes:
        tar: The tar with the images. Each is followed by a `.json` member, img2dataset's row about it.
        outcomes: The outcome of each URL, in their order.
    """

    tar: Path
    outcomes: list[Outcome]


class Engine:
    """Downloads parts, with img2dataset in one child process that is kept between them. Use it as a context manager.

    The child fetches one part at a time. A second thread may call `download` meanwhile, so that the child fetches its
    part while the first thread reads what was stored.
    """

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._fetching = Lock()
        self._child: ChildProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(kill=kind is not None)

    def close(self, kill: bool = False) -> None:
        """End the child process. It is started again when it is needed."""
        if self._child:
            self._child.close(kill)
        self._child = None

    def download(self, part: int, urls: Sequence[str | None], folder: Path) -> Downloaded:
        """Download a part. A URL that occurs several times is fetched once, and its rows share one outcome.

        Args:
            part: Number of the part, from 0 on; it names the files and the members of the tar.
            urls: URLs, at most 100,000; None or an empty one is an error row.
            folder: An empty folder on a local disk; `NNNNN.tar` and `NNNNN_stats.json` are written into it.

        Raises:
            UserError: img2dataset is missing, or its process ended twice.
            OSError: Files could not be written.
        """
        assert len(urls) <= MAX_ROWS
        refused = {url: reason for url in urls if (reason := _refusal(url))}
        asked = _spread(dict.fromkeys(url for url in urls if url is not None and url not in refused))
        outcomes: dict[str | None, Outcome] = {url: Outcome(reason) for url, reason in refused.items()}
        with self._fetching:
            rows = self._run(part, asked, folder)
        tar = folder / f"{part:05d}.tar"
        outcomes.update(zip(asked, read_outcomes(tar, rows), strict=True))
        return Downloaded(tar, [outcomes[url] for url in urls])

    def _run(self, part: int, urls: Sequence[str], folder: Path) -> list[Any]:
        """Return what the child says of each URL. If it ends, another child does the part, resizing carefully."""
        for last_try in (False, True):
            rows = folder / f"{part:05d}.arrow"
            with pa.ipc.new_file(rows, pa.schema({"url": pa.string()})) as file:
                file.write_table(pa.table({"url": pa.array(urls, pa.string())}))
            try:
                child = self._started()
                child.send({"part": part, "rows": str(rows), "folder": str(folder), "careful": last_try})
                return child.receive()["rows"]  # type: ignore[no-any-return]
            except ChildDiedError as death:
                self.close(kill=True)
                if last_try:
                    raise UserError(
                        f"download: img2dataset's process ended twice, by {death}; if memory is short, lower "
                        "concurrency or max_bytes"
                    ) from death
            except BaseException as error:
                self.close(kill=True)
                if isinstance(error, OSError) and error.filename is None:
                    error.filename = str(folder)  # a full disk is to be found
                raise
        raise AssertionError("not reached")

    def _started(self) -> ChildProcess:
        if self._child is None:
            self._child = ChildProcess(find_python(self._settings.engine.python), self._settings.for_child())
        return self._child


def _refusal(url: str | None) -> str:
    """Return why a URL cannot be written down for the child; an empty text: it can."""
    if not url:
        return "bad URL: empty"
    return f"bad URL: {reason}" if (reason := not_unicode(url)) else ""


def _spread(urls: Iterable[str]) -> list[str]:
    """Return URLs with those of one host far from each other, so that threads do not all wait for one host."""
    count: Counter[str] = Counter()
    turns = []
    for url in urls:
        host = url.split("/", 3)[2:3]
        count["".join(host)] += 1
        turns.append((count["".join(host)], url))
    return [url for _, url in sorted(turns, key=lambda turn: turn[0])]
