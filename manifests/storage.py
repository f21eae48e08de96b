"""Folders of runs and pools: a local path or any pyarrow/fsspec URL, with atomic writes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs as pafs

from core.errors import BadSampleError, UserError
from core.paths import check_path, check_replaceable
from core.secrets import refuse_credentials

ASIDE = ".aside-"
"""Prefix of a file that is still being written; readers ignore it."""

LEADS_OUT = "link: leads out of the pool, not followed (follow_links of the pool allows it)"
NO_FILE = "not a file: a pipe, socket or device, not opened"

_ASIDE_LIFETIME_S = 3600.0
_ARROW_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")


class LinkError(BadSampleError):
    """A path that leaves its folder by a link, or is not a regular file; the text is a row's error."""


@dataclass(frozen=True)
class Folder:
    """A folder on some file system.

    Attributes:
        filesystem: The pyarrow file system; it pickles, so a folder can be sent to another machine.
        path: The folder's path on that file system, without a trailing slash.
        local: Whether the path is on this machine's file system.
    """

    filesystem: pafs.FileSystem
    path: str
    local: bool

    @classmethod
    def at(cls, url: str | os.PathLike[str]) -> Folder:
        """Return the folder at `url`: a local path, `s3://`, `gs://`, or any URL that fsspec knows. Nothing is created.

        Raises:
            UserError: It is not a URL or path, contains a credential, or no installed file system knows its scheme.
        """
        text = check_path(url)
        if "://" not in text:
            return cls(pafs.LocalFileSystem(), os.path.abspath(text), True)
        refuse_credentials(text, f"{text.partition('://')[0]}://…")
        try:
            parts = urlsplit(text)
        except ValueError as error:  # such as an unclosed bracket
            raise UserError(f"{text}: no URL: {error}") from error
        if parts.fragment or (parts.scheme == "file" and (parts.netloc or parts.query)):
            raise UserError(f"{text}: not a URL of a folder; a local path is given plainly or as file:///path")
        if parts.scheme == "file":
            return cls(pafs.LocalFileSystem(), os.path.abspath(unquote(parts.path)), True)
        try:
            with _reached():  # this asks S3 for the bucket's region
                filesystem, path = pafs.FileSystem.from_uri(text)
        except pa.ArrowInvalid as error:
            if parts.scheme in _ARROW_SCHEMES:
                raise UserError(f"{text}: {' '.join(str(error).split())}") from error
            filesystem, path = _fsspec(text)
        return cls(filesystem, path.rstrip("/"), False)

    def join(self, name: str) -> Folder:
        return Folder(self.filesystem, f"{self.path}/{name}", self.local)

    def relative(self, path: str) -> str:
        """Return a path on this file system relative to this folder."""
        return path.removeprefix(self.path).lstrip("/")

    def files(self, recursive: bool = False) -> list[pafs.FileInfo]:
        """Return the files in this folder, sorted by path; none if the folder does not exist."""
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        with _reached(self.local):
            try:
                entries = self.filesystem.get_file_info(selector)
            except FileNotFoundError:  # created after Arrow tried to list it and before it looked whether it exists
                entries = self.filesystem.get_file_info(selector)
        return sorted((f for f in entries if f.type == pafs.FileType.File), key=lambda f: f.path)

    def folders(self) -> list[str]:
        """Return the names of the folders in this folder, sorted; none if the folder does not exist."""
        with _reached(self.local):
            entries = self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        return sorted(f.base_name for f in entries if f.type == pafs.FileType.Directory)

    def exists(self, name: str) -> bool:
        with _reached(self.local):
            return bool(self.filesystem.get_file_info(f"{self.path}/{name}").type == pafs.FileType.File)

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        if self.local:  # for a small file, a third of the time that Arrow's file system takes
            with open(f"{self.path}/{name}", "rb") as file:
                return file.read()
        with _reached(self.local), self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            return stream.read()  # type: ignore[no-any-return]

    def open_inside(self, name: str) -> BinaryIO:
        """Open a file of a local folder with foreign content. Links are followed only inside the folder.

        Raises:
            LinkError: The name leads out of the folder, or to a pipe, socket or device.
        """
        return os.fdopen(self._open_inside(name)[0], "rb")

    def read_inside(self, name: str) -> bytes:
        """Read a whole file as `open_inside` opens it, in few system calls: there threads wait for each other.

        Raises:
            LinkError: As in `open_inside`.
        """
        file, length = self._open_inside(name)
        with os.fdopen(file, "rb", buffering=0) as opened:
            data = os.read(file, length + 1)
            return data if len(data) == length else data + opened.read()  # it is being written, or very large

    def _open_inside(self, name: str) -> tuple[int, int]:
        """Return the descriptor of a file in a local folder, and its length; see `open_inside`."""
        path = f"{self.path}/{name}"
        if _has_links(self.path, name):
            top, path = os.path.realpath(self.path), os.path.realpath(path)
            if not path.startswith(top.rstrip(os.sep) + os.sep):
                raise LinkError(LEADS_OUT)
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # opening a pipe would block
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            os.close(file)
            raise LinkError(NO_FILE)
        return file, status.st_size

    def create(self) -> None:
        """Create the folder if it is local; object stores have no folders."""
        if self.local:
            try:
                os.makedirs(self.path, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise UserError(f"{error.filename}: is not a folder, or lies in a file: name another folder") from error

    def delete(self, name: str) -> None:
        """Delete a file; do nothing if it does not exist."""
        if self.exists(name):
            with suppress(FileNotFoundError):  # another process deleted it just now
                self.filesystem.delete_file(f"{self.path}/{name}")

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a file atomically, as `writing` does."""
        with self.writing(name) as stream:
            stream.write(data)

    def create_file(self, name: str, data: bytes) -> bool:
        """Write a file atomically, unless one of that name exists. Return whether this call wrote it.

        On a local or shared folder whose file system has hard links, exactly one of several simultaneous writers
        succeeds. Elsewhere, as in object stores, existence is checked just before the write, and the last writer wins.
        """
        if self.exists(name):
            return False
        if not self.local:
            self.write(name, data)
            return self.read(name) == data
        aside = f"{ASIDE}{uuid.uuid4().hex}"
        self.write(aside, data)
        try:
            os.link(f"{self.path}/{aside}", f"{self.path}/{name}")
        except FileExistsError:
            return False
        except OSError:  # no hard links here
            os.replace(f"{self.path}/{aside}", f"{self.path}/{name}")
        finally:
            Path(f"{self.path}/{aside}").unlink(missing_ok=True)
        return True

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Yield a stream for an atomic write: after an exception or a kill, the file does not appear.

        A local file is written under a temporary name, synced and renamed. Elsewhere there is one upload, which the
        object store shows when it is complete. A kill leaves at most the temporary file, which readers ignore.
        """
        if not self.local:
            with tempfile.TemporaryFile() as file:  # closing a partial upload would publish it as complete
                yield file
                file.seek(0)
                with _reached(self.local), self.filesystem.open_output_stream(f"{self.path}/{name}") as stream:
                    shutil.copyfileobj(file, stream, 1 << 22)
            return
        self.create()
        check_replaceable(f"{self.path}/{name}")
        aside = f"{self.path}/{ASIDE}{uuid.uuid4().hex}"
        try:
            with pa.OSFile(aside, "wb") as file:  # Python's own files cost pyarrow four times as much
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, f"{self.path}/{name}")
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def take(self, file: Path, name: str) -> None:
        """Move a file of this machine into the folder, as atomically as `writing`. The file may stay where it is.

        On the same file system it is synced and renamed, elsewhere it is copied.
        """
        if self.local:
            self.create()
            check_replaceable(f"{self.path}/{name}")
            with file.open("rb") as source:
                os.fsync(source.fileno())
            try:
                os.replace(file, f"{self.path}/{name}")
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        with file.open("rb") as source, self.writing(name) as target:
            shutil.copyfileobj(source, target, 1 << 18)  # larger pieces take four times as long

    def sweep_aside(self, older_than: float = _ASIDE_LIFETIME_S) -> int:
        """Delete temporary files, which killed writers left. Return how many were deleted.

        Args:
            older_than: Their least age in seconds. The files of running writers are younger than an hour.
        """
        if not self.local:
            return 0
        aside = [f for f in self.files() if f.base_name.startswith(ASIDE)]
        stale = [f.path for f in aside if time.time() - f.mtime_ns / 1e9 >= older_than]
        for path in stale:
            Path(path).unlink(missing_ok=True)
        return len(stale)


def _has_links(folder: str, name: str) -> bool:
    """Return whether a path in a folder may lead elsewhere: a part of it is a link, or no plain name."""
    parts = name.split("/")
    paths = accumulate(parts, "{}/{}".format, initial=folder)
    next(paths)
    return not {"", ".", ".."}.isdisjoint(parts) or any(map(os.path.islink, paths))


@contextmanager
def _reached(local: bool = False) -> Iterator[None]:
    """Turn an object store's errors, plain OSErrors without a number, into ConnectionErrors.

    Raises:
        ConnectionError: The store does not answer, or refuses the request.
    """
    try:
        yield
    except OSError as error:
        if local or error.errno is not None or type(error) is not OSError:
            raise
        raise ConnectionError(" ".join(str(error).split())) from error


def _fsspec(url: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path
