"""The process in which img2dataset runs: it takes parts by standard input and answers by a pipe, as lines of JSON.

img2dataset's downloader and resizer do the work as they are. One function is replaced, by `Fetcher.fetch`, and the
writer is ours.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import time
from collections.abc import Mapping
from threading import Thread
from typing import Any

from .exchange import ProxyError
from .fetch import Fetcher
from .resizing import apart, make_resizer
from .tar_writer import MAX_ROWS, Row, TarWriter

TESTED = "1.47.0"
"""The version of img2dataset whose function is replaced. Another one may fetch in another way, without our limits."""

_SHARD_DIGITS = 5


class SetUpError(Exception):
    """This environment cannot fetch. The text says why."""


class _Image(io.BytesIO):
    """The bytes of an image, on their way from the fetcher to the resizer."""

    row = -1


class Parts:
    """Downloads parts.

    Args:
        settings: `fetch` has the arguments of `Fetcher`; `threads` is the number of URLs that are fetched at once;
            `resize` is that of `make_resizer`.

    Raises:
        SetUpError: img2dataset is missing or is another version, or a proxy cannot be used.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        try:
            version = importlib.metadata.version("img2dataset")
            from img2dataset import downloader, resizer
        except ImportError as error:
            raise SetUpError(f"img2dataset cannot be imported ({error})") from error
        if version != TESTED:
            raise SetUpError(f"img2dataset {version} is installed, and {TESTED} is needed")
        try:
            self._fetcher = Fetcher(**settings["fetch"])
        except ProxyError as error:
            raise SetUpError(str(error)) from error
        self._threads, self._downloader = settings["threads"], downloader
        self._results: dict[int, tuple[int | None, bool]] = {}
        self._resizer = make_resizer(resizer.Resizer, settings["resize"])
        self._resizer_apart = apart(self._resizer, self._note_kill) if settings["resize"] else self._resizer
        downloader.download_image = self._download_image  # the only change to img2dataset

    def download(self, part: int, rows: str, folder: str, careful: bool) -> list[tuple[Any, ...]]:
        """Write `NNNNN.tar` and `NNNNN_stats.json` for a part into a folder.

        Args:
            part: Number of the part, which names the files.
            rows: Path of an Arrow file with a column `url`. It is deleted.
            folder: Path of the folder.
            careful: Whether each image is resized in a process of its own.

        Returns:
            What became of each row: the fields of `Row`, HTTP status, and whether another run may succeed.

        Raises:
            OSError: Files could not be written.
        """
        self._results = {}
        self._fetcher.hosts.begin_part()
        writer = TarWriter(f"{folder}/{part:0{_SHARD_DIGITS}d}.tar")
        download = self._downloader.Downloader(
            sample_writer_class=lambda *_: writer,
            resizer=self._resizer_apart if careful else self._resizer,
            thread_count=self._threads,
            save_caption=False,
            extract_exif=False,
            output_folder=folder,
            column_list=["url"],
            timeout=None,
            number_sample_per_shard=MAX_ROWS,
            oom_shard_count=_SHARD_DIGITS,
            compute_hash=None,  # the writer does
            verify_hash_type=None,
            encode_format="jpg",
            retries=0,
            user_agent_token=None,
            disallowed_header_directives=None,
        )
        download.download_shard((part, rows))
        if writer.problem:
            raise writer.problem
        # img2dataset's loop prints errors that it does not expect, and goes on without the row.
        lost = Row("lost: img2dataset did not store this row")
        return [
            (*writer.rows.get(row, lost), status, retry or row not in writer.rows)
            for row, (status, retry) in sorted(self._results.items())
        ]

    def _download_image(self, row: tuple[int, str], *_: Any, **__: Any) -> tuple[int, _Image | None, str | None]:
        """Fetch one URL, as img2dataset's function of this name does. Its other arguments are the fetcher's."""
        number, url = row
        fetched = self._fetcher.fetch(url)
        self._results[number] = (fetched.status, fetched.retry)
        if fetched.body is None:
            return number, None, fetched.error
        image = _Image(fetched.body)
        image.row = number
        return number, image, None

    def _note_kill(self, image: _Image) -> None:
        """Note that another run may succeed with an image, as there may be more memory."""
        status, _ = self._results[image.row]
        self._results[image.row] = (status, True)


def serve(answers: int) -> None:
    """Download the parts that come by standard input, until it ends.

    The first line has the settings of `Parts`, and the answer is `{}`. Each other line has the arguments of
    `Parts.download`; the answer is `{"rows": […]}`. `{"error": …, "errno": …}` instead is the last answer.

    Args:
        answers: File descriptor of the pipe for answers. Standard output belongs to what libraries print.
    """
    source, output = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(answers, "w", encoding="utf-8")
    os.set_inheritable(answers, False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()

    def answer(line: Mapping[str, Any]) -> None:
        output.write(json.dumps(line) + "\n")
        output.flush()

    try:
        parts = Parts(json.loads(source.readline()))
        answer({})
        for line in source:
            answer({"rows": parts.download(**json.loads(line))})
    except SetUpError as error:
        answer({"error": str(error), "errno": None})
    except OSError as error:
        answer({"error": error.strerror or str(error), "errno": error.errno})


def _end_with(parent: int) -> None:
    """End this process with its parent, and not after its part."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
