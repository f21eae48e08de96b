"""The stage `download`: URLs become images in tars, and where an image's bytes are becomes a fact like any other."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from core.stages import Facts, LoadedStage
from manifests.process import is_gone, this_process
from pipeline.stages.download.columns import WRITES
from pipeline.stages.download.fetching.child import TESTED
from pipeline.stages.download.settings import DownloadSettings

if TYPE_CHECKING:
    from pipeline.stages.download.engine import Engine
    from pipeline.stages.download.outcomes import Outcome
    from pipeline.stages.download.storage import TarStore

_FOLDER = "vl3syn-download-"
"""Prefix of the temporary folder of a part. The name of the worker's process follows."""


class Download(DownloadSettings, LoadedStage):
    """Download the images of a URL list with img2dataset. Later stages read the images where this stage has put them.

    A URL that a later run may get (a status 429 or 5xx, a timeout, a reset) is asked again by the next run, others are
    not: `vl3syn retry` does that. COYO-700M and other lists are old: a part of the URLs is gone, and behind others
    there is another image by now (`size_differs`).

    Attributes:
        images: Path or URL of the folder for the tars; default `images` in the run. It is also a pool of `tars`.
    """

    name: ClassVar = "download"
    reads: ClassVar = ("url", "width", "height")
    writes: ClassVar = WRITES
    fingerprint_exclude: ClassVar = (
        "images",
        "engine",
        "concurrency",
        "per_host",
        "min_pause",
        "max_pause",
        "timeout",
        "max_bytes",
        "allow",
        "user_agent",
        "proxies",
    )
    images: str | None = None

    def check_available(self) -> None:
        from pipeline.stages.download.child_process import find_python

        find_python(self.engine.python)

    def start(self, tars: TarStore) -> Downloader:
        """Return what downloads a part into `tars`."""
        from pipeline.stages.download.engine import Engine

        settings = self.model_dump(include=set(DownloadSettings.model_fields))
        return Downloader(Engine(DownloadSettings.model_validate(settings)), tars)


class Downloader(Facts):
    """`Facts` of `download`. Each call downloads a part and stores its images in a tar of their own.

    Two threads may call it: the images of one part are fetched while the other part is stored.
    """

    provenance: Mapping[str, object] = {"img2dataset": TESTED}

    def __init__(self, engine: Engine, tars: TarStore) -> None:
        self._engine, self._tars, self._numbers = engine, tars, itertools.count()
        _sweep_folders()

    def __call__(self, batch: pa.Table) -> pa.Table:
        with tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{this_process()}-") as folder:
            done = self._engine.download(next(self._numbers), batch["url"].to_pylist(), Path(folder))
            stored = any(outcome.error is None for outcome in done.outcomes)
            name = self._tars.store(done.tar) if stored else None
        return _table(done.outcomes, name, batch)

    def close(self) -> None:
        """End img2dataset's process. It would end with this one."""
        self._engine.close()


def _sweep_folders() -> None:
    """Delete the temporary folders of workers on this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        worker = folder.name.removeprefix(_FOLDER).rpartition("-")[0]
        if is_gone(worker) and worker != this_process():
            shutil.rmtree(folder, ignore_errors=True)


def _table(outcomes: Sequence[Outcome], tar: str | None, listed: pa.Table) -> pa.Table:
    """Return the columns of the stage for the outcomes of a part; `listed` has the sizes that the list says."""
    failed = np.array([outcome.error is not None for outcome in outcomes])
    width, height = (
        np.array([getattr(outcome, name) or 1 for outcome in outcomes], np.int64) for name in ("width", "height")
    )
    sizes = zip(outcomes, listed["width"].to_pylist(), listed["height"].to_pylist(), strict=True)
    differs = [_differs(outcome.served, width, height) for outcome, width, height in sizes]
    columns = {
        "image_shard": pa.array([None if o.error else tar for o in outcomes], pa.string()),
        "image_offset": pa.array([o.offset for o in outcomes], pa.int64()),
        "image_bytes": pa.array([o.length for o in outcomes], pa.int64()),
        "image_sha256": pa.array([o.sha256 for o in outcomes], pa.string()),
        "image_width": pa.array(width, pa.int32(), mask=failed),
        "image_height": pa.array(height, pa.int32(), mask=failed),
        "image_format": pa.array([o.format for o in outcomes], pa.string()),
        "image_animated": pa.array([o.animated for o in outcomes], pa.bool_()),
        "image_ratio": pa.array(np.maximum(width, height) / np.minimum(width, height), pa.float32(), mask=failed),
        "image_side": pa.array(np.minimum(width, height), pa.int32(), mask=failed),
        "size_differs": pa.array(differs, pa.bool_()).cast(pa.int8()),
        "http_status": pa.array([o.status for o in outcomes], pa.int16()),
        "error": pa.array([o.error for o in outcomes], pa.string()),
        "retry": pa.array([o.retry for o in outcomes], pa.bool_()),
    }
    return pa.table(columns)


def _differs(served: tuple[int, int] | None, width: int | None, height: int | None) -> bool | None:
    """Return whether an image has another size than its list says; None if that is unknown."""
    if served is None or width is None or height is None:
        return None
    return sorted(served) != sorted((width, height))  # some lists have the sides before EXIF rotation
