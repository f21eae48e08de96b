"""Open films safely: a foreign file must not open any other file or connection."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import BadSampleError
from core.films import FilmFile

DEMUXERS = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "ogg", "mxf", "rm", "nut", "wtv", "dv",
    "h261", "h263", "h264", "hevc", "vvc", "m4v", "av1", "obu", "ivf", "vc1", "mjpeg", "yuv4mpegpipe", "gif", "apng",
)  # fmt: skip
"""Containers that are read, by FFmpeg's names. They hold their frames themselves. Playlists (hls, concat, sdp, dash,
image2, …) are excluded: they open other files and hosts, whatever the file's own name is."""

MOST_PIXELS = 1 << 26
"""Pixels of a frame, at most: twice those of 8K (7680 x 4320). A decoder holds up to 17 frames of a film."""

_BUFFER = 1 << 18
"""Bytes of one read of a film that is no local file."""

_PICTURES = frozenset({"mjpeg", "png", "bmp", "gif", "webp", "tiff"})
"""Codecs of covers that are not marked as covers. A stream in one of them is the film if there is no other stream."""


def open_container(path: str | Path | FilmFile) -> Any:
    """Open one film and no other file: FFmpeg may neither follow references in it nor take the path for a URL.

    Raises:
        BadSampleError: It is not a regular file, has another length than it was indexed with, or its container is not
            in `DEMUXERS`.
    """
    import av

    if isinstance(path, FilmFile):
        if path.path is None:
            return _open_stream(path)
        _check_length(path.path, path.length)
        path = path.path
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe may block forever, a device may never end
            raise BadSampleError("no regular file")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise BadSampleError(f"{path}: cannot be read as a video: {reason}; give a file") from error
    # FFmpeg's default already keeps external data of QuickTime's `dref` closed. It is set here, as defaults may change.
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file", "enable_drefs": "0"}
    try:
        # A film with a title in another encoding is still usable.
        return av.open(f"file:{os.fspath(path)}", metadata_errors="replace", container_options=options)
    except av.error.ArgumentError as error:
        raise BadSampleError(f"{path}: a playlist, or no known film: give mp4, mov, mkv, webm, avi, mpeg, …") from error
    except (av.error.FFmpegError, OSError) as error:
        raise BadSampleError(f"{path}: cannot be read as a video: {error}; give a whole file") from error


def _open_stream(film: FilmFile) -> Any:
    """Open a film that is a part of a file, or an object of a store."""
    import av

    assert film.open is not None
    # Without a protocol nothing else can be opened.
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "none", "enable_drefs": "0"}
    file = film.open()
    try:
        return av.open(file, metadata_errors="replace", container_options=options, buffer_size=_BUFFER)
    except av.error.ArgumentError as error:
        raise BadSampleError(f"{film}: a playlist, or no known film: give mp4, mov, mkv, webm, avi, mpeg, …") from error
    except (av.error.FFmpegError, OSError) as error:
        raise BadSampleError(f"{film}: cannot be read as a video: {error}; give a whole file") from error


def _check_length(path: str, indexed: int | None) -> None:
    try:
        length = os.stat(path).st_size
    except OSError as error:
        raise BadSampleError(f"{path}: cannot be read as a video: {error.strerror}; give a file") from error
    if indexed is not None and length != indexed:
        raise BadSampleError(f"{path}: has {length:,} bytes now, and had {indexed:,}: index the pool again")


@contextmanager
def open_film(path: str | Path | FilmFile, threads: int = 0) -> Iterator[tuple[Any, Any]]:
    """Open a film. Yield its container and its best video stream that is not a cover.

    Args:
        path: The film.
        threads: Threads of the decoder; 0: FFmpeg decides. Each holds frames of its own.

    Raises:
        BadSampleError: As in `open_container`; there is no such stream; its frames have more than `MOST_PIXELS`; or
            reading fails in the `with` block.
    """
    import av

    try:
        with open_container(path) as container:
            stream = _film_of(container)
            if stream is None:
                covers = ", only a cover" if container.streams.video else ""
                raise BadSampleError(f"{path}: no video stream{covers}: give a video file")
            stream.thread_type = "AUTO"
            if stream.codec_context is not None:
                _limit(path, stream.codec_context, threads)
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise BadSampleError(f"{path}: cannot be read as a video: {error}; give a whole file") from error


def _limit(path: str | Path | FilmFile, decoder: Any, threads: int) -> None:
    """Limit the memory of a decoder that is not open yet. A film may also change its size on the way."""
    if decoder.width * decoder.height > MOST_PIXELS:
        raise BadSampleError(
            f"{path}: frames of {decoder.width} x {decoder.height} pixels, at most {MOST_PIXELS:,} are decoded: "
            "give a smaller copy"
        )
    decoder.thread_count = threads
    decoder.options = {"max_pixels": str(MOST_PIXELS)}


def _film_of(container: Any) -> Any:
    """Return FFmpeg's choice of video stream or, if that is a cover, the film with most frames; None without a film.

    FFmpeg prefers the stream that is marked as default, which is often a cover.
    """
    from av.stream import Disposition

    cover = Disposition.attached_pic | Disposition.timed_thumbnails
    films = [stream for stream in container.streams.video if not stream.disposition & cover]
    # A stream of damaged bytes may have a codec that FFmpeg does not know, and then no context.
    films = [s for s in films if s.codec_context is None or s.codec_context.name not in _PICTURES] or films
    best = container.streams.best("video")
    return best if best in films else max(films, key=lambda stream: stream.frames, default=None)
