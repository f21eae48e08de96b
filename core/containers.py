"""Open films safely: a foreign file must not open any other file or connection."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from core.errors import BadSampleError
from core.file_window import WatchedFile
from core.films import FilmFile, FilmLostError
from core.mp4_boxes import check_boxes

DEMUXERS = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "ogg", "mxf", "rm", "nut", "wtv", "dv",
    "h261", "h263", "h264", "hevc", "vvc", "m4v", "av1", "obu", "ivf", "vc1", "mjpeg", "yuv4mpegpipe", "gif", "apng",
)  # fmt: skip
"""Containers that are read, by FFmpeg's names. They hold their frames themselves. Playlists (hls, concat, sdp, dash,
image2, …) are excluded: they open other files and hosts, whatever the file's own name is."""

_BUFFER = 1 << 18
"""Bytes of one read of a film that is no local file."""

_PICTURES = frozenset({"mjpeg", "png", "bmp", "gif", "webp", "tiff"})
"""Codecs of covers that are not marked as covers. A stream in one of them is the film if there is no other stream."""

MAX_PIXELS = 35_651_584
"""Largest frame, in pixels: 8192 × 4352, the limit of H.264, H.265 and AV1 at level 6.2. A decoder keeps up to 16
frames, and one more for each of its threads, so larger frames would take gigabytes."""

MAX_STREAMS = 256
"""Most streams of a container. Films have a few; those with many subtitles and fonts have some dozens. Each stream
takes memory of its own, and a few thousand bytes can name thousands of streams."""

_OPTIONS = {
    "format_whitelist": ",".join(DEMUXERS),
    # FFmpeg's default already keeps external data of QuickTime's `dref` closed. It is set here, as defaults may change.
    "enable_drefs": "0",
    "max_streams": str(MAX_STREAMS + 1),
    "max_pixels": str(MAX_PIXELS),  # FFmpeg decodes a frame where the header does not say the form of pixels
}


def open_container(path: str | Path | FilmFile) -> Any:
    """Open one film and no other file: FFmpeg may neither follow references in it nor take the path for a URL.

    Raises:
        BadSampleError: It is not a regular file, or its container is not in `DEMUXERS` or has more than `MAX_STREAMS`
            streams.
        FilmLostError: The disk or the network failed, or the film has another length than it was indexed with.
    """
    return _opened(path)[0]


def _opened(path: str | Path | FilmFile) -> tuple[Any, WatchedFile | None]:
    """Return the container and, for a film that is no local file, the file behind it."""
    if isinstance(path, FilmFile) and path.path is None:
        return _open_stream(path)
    file = path.path if isinstance(path, FilmFile) else path
    assert file is not None
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):  # a pipe may block forever, a device may never end
            raise BadSampleError("no regular file")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise BadSampleError(f"{path}: cannot be read as a video: {reason}; give a file") from error
    if isinstance(path, FilmFile):
        _check_length(path, status.st_size)
    try:
        with open(file, "rb") as opened:
            check_boxes(opened)
    except (OSError, BadSampleError) as error:
        raise _refused(path, error) from error
    return _checked(path, f"file:{os.fspath(file)}", {"protocol_whitelist": "file"}), None


def _open_stream(film: FilmFile) -> tuple[Any, WatchedFile]:
    """Open a film that is a part of a file, or an object of a store."""
    assert film.open is not None
    try:
        file = film.open()
        _check_length(film, file.seek(0, os.SEEK_END))
        file.seek(0)
    except OSError as error:
        raise FilmLostError(f"{film}: unreadable: {' '.join(str(error).split())[:300]}") from error
    watched = WatchedFile(file)
    try:
        try:
            check_boxes(cast(BinaryIO, watched))
        except BadSampleError as error:
            raise _refused(film, error) from error
        return _checked(film, watched, {"protocol_whitelist": "none"}), watched  # so nothing else can be opened
    except BadSampleError:
        watched.close()
        _raise_lost(film, watched)
        raise


def _checked(film: str | Path | FilmFile, source: str | WatchedFile, options: dict[str, str]) -> Any:
    import av

    try:
        # A film with a title in another encoding is still usable.
        container = av.open(source, metadata_errors="replace", options={**_OPTIONS, **options}, buffer_size=_BUFFER)
    except av.error.ArgumentError as error:
        raise BadSampleError(f"{film}: a playlist, or no known film: give mp4, mov, mkv, webm, avi, mpeg, …") from error
    except (av.error.FFmpegError, OSError) as error:
        raise _unreadable(film, error) from error
    if len(container.streams) > MAX_STREAMS:
        container.close()
        raise BadSampleError(f"{film}: too many streams: more than {MAX_STREAMS}; give a video file")
    return container


def _unreadable(film: str | Path | FilmFile, error: Exception) -> BadSampleError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return BadSampleError(f"{film}: cannot be read as a video: {reason}; give a whole file")


def _refused(film: str | Path | FilmFile, error: Exception) -> BadSampleError:
    return _unreadable(film, error) if isinstance(error, OSError) else BadSampleError(f"{film}: {error}")


def _check_length(film: FilmFile, length: int) -> None:
    if film.length is not None and length != film.length:
        raise FilmLostError(f"{film}: changed: has {length:,} bytes now, had {film.length:,}; index the pool again")


def _raise_lost(film: str | Path | FilmFile, file: WatchedFile | None) -> None:
    if file is not None and file.error is not None:
        raise FilmLostError(f"{film}: unreadable: {' '.join(str(file.error).split())[:300]}") from file.error


@contextmanager
def open_film(path: str | Path | FilmFile, threads: int = 0) -> Iterator[tuple[Any, Any]]:
    """Open a film. Yield its container and its best video stream that is not a cover.

    Args:
        path: The film.
        threads: Threads of the decoder; 0: FFmpeg decides. Each holds frames of its own.

    Raises:
        BadSampleError: As in `open_container`; there is no such stream, its codec is unknown, its frames have more than
            `MAX_PIXELS` pixels; or reading fails in the `with` block.
        FilmLostError: As in `open_container`.
    """
    import av

    opened, file = _opened(path)
    try:
        with opened as container:
            stream = _film_of(container)
            if stream is None:
                covers = ", only a cover" if container.streams.video else ""
                raise BadSampleError(f"{path}: no video stream{covers}: give a video file")
            context = stream.codec_context
            if context is None:
                raise BadSampleError(f"{path}: unknown codec: FFmpeg has no decoder for it; convert it to H.264")
            if context.width * context.height > MAX_PIXELS:
                raise BadSampleError(
                    f"{path}: too large: frames of {context.width} × {context.height} pixels, more than "
                    f"{MAX_PIXELS:,}; give a smaller video"
                )
            context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may grow later
            stream.thread_type = "AUTO"
            context.thread_count = threads
            yield container, stream
        _raise_lost(path, file)
    except BadSampleError:
        _raise_lost(path, file)
        raise
    except (av.error.FFmpegError, OSError) as error:
        _raise_lost(path, file)
        raise _unreadable(path, error) from error
    finally:
        if file is not None:
            file.close()


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
