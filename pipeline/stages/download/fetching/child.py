"""The process in which img2dataset runs: it takes parts by standard input and answers by a pipe, as lines of JSON.

img2dataset's downloader, resizer and writer do the work as they are. One function is replaced, by `Fetcher.fetch`.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from threading import Lock, Thread
from typing import Any

from .exchange import ProxyError
from .fetch import Fetcher
from .orientation import orientation_of, with_orientation

TESTED = "1.47.0"
"""The version of img2dataset whose function is replaced. Another one may fetch in another way, without our limits."""

MAX_ROWS = 100_000
"""Most rows of a part. img2dataset names images by part and row, in so many digits."""

_SHARD_DIGITS = 5

Answer = Callable[[Mapping[str, Any]], None]


class SetUpError(Exception):
    """This environment cannot fetch. The text says why."""


class _Image(io.BytesIO):
    """The bytes of an image, on their way from the fetcher to the resizer."""

    row = -1


class Parts:
    """Downloads parts.

    Args:
        settings: `fetch` has the arguments of `Fetcher`; `threads` is the number of URLs that are fetched at once;
            `resize` is None, or has `mode`, `size` and `quality` for img2dataset's resizer.
        answer: Sends a line. Before an image is resized, its row is sent: foreign bytes may end the process.

    Raises:
        SetUpError: img2dataset is missing or is another version, or a proxy cannot be used.
    """

    def __init__(self, settings: Mapping[str, Any], answer: Answer) -> None:
        try:
            version = importlib.metadata.version("img2dataset")
            from img2dataset import downloader, resizer, writer
        except ImportError as error:
            raise SetUpError(f"img2dataset cannot be imported ({error})") from error
        if version != TESTED:
            raise SetUpError(f"img2dataset {version} is installed, and {TESTED} is needed")
        try:
            self._fetcher = Fetcher(**settings["fetch"])
        except ProxyError as error:
            raise SetUpError(str(error)) from error
        self._threads, self._writer, self._downloader = settings["threads"], writer, downloader
        self._answer = answer
        self._results: dict[int, tuple[int | None, bool]] = {}
        self._resizer = self._make_resizer(resizer.Resizer, settings["resize"])
        downloader.download_image = self._download_image  # the only change to img2dataset

    def download(self, part: int, rows: str, folder: str) -> list[tuple[int | None, bool]]:
        """Write `NNNNN.tar`, `NNNNN.parquet` and `NNNNN_stats.json` for a part into a folder.

        Args:
            part: Number of the part, which names the files.
            rows: Path of an Arrow file with a column `url`. It is deleted.
            folder: Path of the folder.

        Returns:
            HTTP status, and whether another run may succeed, for each row.

        Raises:
            OSError: Files could not be written.
        """
        self._results = {}
        self._fetcher.hosts.begin_part()
        problems: list[OSError] = []
        download = self._downloader.Downloader(
            sample_writer_class=self._make_writer(problems),
            resizer=self._resizer,
            thread_count=self._threads,
            save_caption=False,
            extract_exif=False,
            output_folder=folder,
            column_list=["url"],
            timeout=None,
            number_sample_per_shard=MAX_ROWS,
            oom_shard_count=_SHARD_DIGITS,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format="jpg",
            retries=0,
            user_agent_token=None,
            disallowed_header_directives=None,
        )
        download.download_shard((part, rows))
        if problems:
            raise problems[0]
        return [self._results[row] for row in range(len(self._results))]

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

    def _make_resizer(self, kind: Any, resize: Mapping[str, Any] | None) -> Callable[..., Any]:
        if resize is None:
            return kind(256, "no", True, disable_all_reencoding=True)  # type: ignore[no-any-return]
        quality = resize["quality"]
        resizer = kind(resize["size"], resize["mode"], True, encode_quality=quality, skip_reencode=True)

        def call(image: _Image, boxes: None) -> tuple[Any, ...]:
            self._answer({"resizing": image.row})
            resized, *sizes = resizer(image, boxes)
            if resized is not None and resized != image.getvalue():
                resized = with_orientation(resized, orientation_of(image))
            return (resized, *sizes)

        return call

    def _make_writer(self, problems: list[OSError]) -> type:
        """Return img2dataset's writer, which notes errors of the disk: the downloader passes over them."""

        class Writer(self._writer.WebDatasetSampleWriter):  # type: ignore[misc,name-defined]
            def write(self, *arguments: Any) -> None:
                try:
                    super().write(*arguments)
                except OSError as error:
                    problems.append(error)
                    raise

        return Writer


def serve(answers: int) -> None:
    """Download the parts that come by standard input, until it ends.

    The first line has the settings of `Parts`, and the answer is `{}`. Each other line has the arguments of
    `Parts.download`; the answer is `{"results": […]}`. `{"error": …, "errno": …}` instead is the last answer.

    Args:
        answers: File descriptor of the pipe for answers. Standard output belongs to what libraries print.
    """
    source, output, lock = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(answers, "w", encoding="utf-8"), Lock()
    os.set_inheritable(answers, False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()

    def answer(line: Mapping[str, Any]) -> None:
        with lock:
            output.write(json.dumps(line) + "\n")
            output.flush()

    try:
        parts = Parts(json.loads(source.readline()), answer)
        answer({})
        for line in source:
            answer({"results": parts.download(**json.loads(line))})
    except SetUpError as error:
        answer({"error": str(error), "errno": None})
    except OSError as error:
        answer({"error": error.strerror or str(error), "errno": error.errno})


def _end_with(parent: int) -> None:
    """End this process with its parent, and not after its part."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
