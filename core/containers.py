"""Opening a film, and nothing else: foreign files open no other file and no connection."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from core.errors import BadSampleError

DEMUXERS = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "ogg", "mxf", "rm", "nut", "wtv", "dv",
    "h261", "h263", "h264", "hevc", "vvc", "m4v", "av1", "obu", "ivf", "vc1", "mjpeg", "yuv4mpegpipe", "gif", "apng",
)  # fmt: skip
"""FFmpeg's names of the containers that are read: those that hold their frames themselves. Playlists (hls, concat, sdp,
dash, image2, …) are not among them: they open other files and hosts, whatever their own name is."""


def open_container(path: str | Path) -> Any:
    """Open one film, and nothing else: FFmpeg may neither follow what a file names nor take a path for an address.

    Raises:
        BadSampleError: It is no regular file, or of no container that is read here.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever, a device never end
            raise BadSampleError("no regular file")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise BadSampleError(f"{path}: cannot be read as a video: {reason}; give a file") from error
    # External data of QuickTime's `dref` stay closed by FFmpeg's default; it is said here, for the default may change.
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file", "enable_drefs": "0"}
    try:
        # Titles in other encodings are no reason to refuse a film.
        return av.open(f"file:{os.fspath(path)}", metadata_errors="replace", container_options=options)
    except av.error.ArgumentError as error:
        raise BadSampleError(f"{path}: a playlist, or no known film: give mp4, mov, mkv, webm, avi, mpeg, …") from error
    except (av.error.FFmpegError, OSError) as error:
        raise BadSampleError(f"{path}: cannot be read as a video: {error}; give a whole file") from error


@contextmanager
def open_film(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """A film to read from and its best video stream, which is not a cover.

    Raises:
        BadSampleError: As `open_container`, or it breaks while it is read.
    """
    try:
        with open_container(path) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise BadSampleError(f"{path}: no video stream: give a video file")
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise BadSampleError(f"{path}: cannot be read as a video: {error}; give a whole file") from error
