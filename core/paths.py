"""Check the paths that a user gives, on the command line or in a recipe, before anything is read or written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from core.errors import UserError


def check_path(path: str | os.PathLike[str], what: str = "") -> str:
    """Return a path or URL as text, if it can be one.

    Args:
        path: The path or URL.
        what: The option or key that gives it, for the error.

    Raises:
        UserError: It is empty, or contains a NUL.
    """
    text, start = os.fspath(path), f"{what}: " if what else ""
    if not text:
        raise UserError(f"{start}an empty path: name a file or folder; . is the current folder")
    if "\0" in text:
        raise UserError(f"{start}{text!r}: no path: it has a NUL in it")
    return text


def absolute(path: str) -> str:
    """Return the absolute form of a local path; a URL is returned unchanged."""
    return path if "://" in path else os.path.abspath(path)


def local_folder(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path on this machine where a folder is or can be made.

    Raises:
        UserError: It is empty, contains a NUL, is a URL, or a file is there.
    """
    text = check_path(path, what)
    if "://" in text:
        raise UserError(f"{what}: {text} is a URL: give a folder on this machine or on a file system mounted here")
    for folder in (Path(text), *Path(text).parents):
        if folder.exists():
            if not folder.is_dir():
                raise UserError(f"{what}: {folder} is a file, not a folder: name another folder")
            break
    return Path(text)


def check_replaceable(path: str | os.PathLike[str], what: str = "") -> None:
    """Check that a file can be written at a local path: nothing is there, or a regular file. Links are followed.

    Raises:
        UserError: A folder, pipe, socket or device is there.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise UserError(f"{f'{what}: ' if what else ''}{os.fspath(path)}: is {kind}, not a file: name a file")
