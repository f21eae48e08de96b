"""The folder that an import writes: it appears whole or not at all, and nothing but an earlier import is replaced.

An import writes beside it, into `.<name>.import-<process>`. An earlier import is moved to `.<name>.replaced-<process>`,
the new one takes its place, and the earlier one is removed. What a killed import leaves, the next one clears away.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import UserError
from manifests.process import is_gone, this_process
from manifests.record_files import NAME
from manifests.renderers import RENDERERS
from model.training.data.importers.embedded import FOLDER
from model.training.data.importers.writer import REJECTED, REPORT

_OURS = re.compile(rf"{NAME}\d+\.(jsonl|parquet)|{REJECTED}|{REPORT}|({'|'.join(RENDERERS)})\.jsonl|{FOLDER}")
_BY_HASH = re.compile("[0-9a-f]{2}")  # folders of embedded images


def check_out(out: Path, replace: bool, source: Path) -> None:
    """Check that a folder can be written, before anything is read; clear away what killed imports left beside it.

    Raises:
        UserError: Something is there, and it is no earlier import that is to be replaced; or the source is in it, or
            it is in the source.
    """
    out, real = _real(out), _real(source)
    if real.is_relative_to(out) or out.is_relative_to(real):
        raise UserError(f"--out {out}: it is in {source}, or {source} is in it: give a folder beside it")
    _clear_left(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not (out / REPORT).is_file():
        raise UserError(f"--out {out}: something else is there: give a new folder")
    if not replace:
        raise UserError(f"--out {out}: an import is there: give a new folder, or --replace")
    if foreign := _foreign(out):
        raise UserError(f"--out {out}: {foreign} in it is of no import, and --replace would remove it: move it")


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """Yield a new folder beside `out` that takes its place at the end, or is removed if anything is raised."""
    out = _real(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial, old = (out.parent / f".{out.name}.{what}-{this_process()}" for what in ("import", "replaced"))
        partial.mkdir()
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from error
    try:
        yield partial
        if out.exists() and any(out.iterdir()):
            out.rename(old)
        partial.rename(out)  # onto nothing, or an empty folder
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)


def _clear_left(out: Path) -> None:
    """Put an earlier import back that was moved away, and remove folders of imports that have ended."""
    for what in ("replaced", "import"):
        start = f".{out.name}.{what}-"
        beside = sorted(out.parent.iterdir()) if out.parent.is_dir() else []
        for left in (path for path in beside if path.name.startswith(start) and is_gone(path.name[len(start) :])):
            if what == "replaced" and not out.exists():
                left.rename(out)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _foreign(out: Path) -> str:
    """Return the name of something in a folder that no import wrote; an empty text if there is nothing."""
    names = [path.name for path in out.iterdir() if not _OURS.fullmatch(path.name)]
    media = out / FOLDER
    if media.is_dir():
        names += [f"{FOLDER}/{path.name}" for path in media.iterdir() if not _BY_HASH.fullmatch(path.name)]
    return min(names, default="")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
