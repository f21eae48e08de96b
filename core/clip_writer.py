"""Write a piece of a film as a file of its own: by copying its packets, or encoded again.

A copy is fast and loses nothing, but it can only begin at a key frame: it begins at the last one before the piece, and
says where in it the piece starts. Sound and subtitles are dropped in both ways, as no model here hears. The same film
and times give the same bytes with the same FFmpeg.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from core.clip_frames import TimedFrame, check_end, frames_between, has_frame_times
from core.containers import open_film
from core.errors import BadSampleError, UserError
from core.film_seeking import seek_before
from core.films import FilmFile
from core.frame_sampling import EDGE
from core.frame_times import UnusableTimesError

_IN_MP4 = frozenset({"h264", "hevc", "av1", "mpeg4", "vp9"})
"""Codecs that players read in MP4. Others are copied into Matroska, which takes all."""

_ENCODERS = {"libx264": {"crf": "18", "preset": "veryfast"}, "libopenh264": {}, "mpeg4": {"qmin": "2", "qmax": "4"}}
"""Encoders, best first, with options of high quality."""

_TICKS = 60_000
"""Time stamps per second of an encoded clip. MPEG-4 allows at most 65,535; common frame rates divide this number."""

_BIT_RATE = 8_000_000  # bits per second, for encoders without a constant quality
_KEY_FRAMES = 60  # at most so many frames from one key frame to the next


@dataclass(frozen=True)
class WrittenClip:
    """A file with a piece of a film.

    Attributes:
        path: The file; its ending names the container.
        start: Where the piece starts in the file, in seconds from the file's first time stamp.
        is_exact: Whether the file has this piece and nothing else.
    """

    path: Path
    start: float
    is_exact: bool


def copy_clip(film: FilmFile, start: float, end: float, folder: Path, name: str) -> WrittenClip:
    """Copy the packets of a piece of a film, from the last key frame before it on, and perhaps a little behind it.

    Args:
        film: The film.
        start: Start of the piece, in seconds from the film's first time stamp.
        end: End of the piece, in seconds.
        folder: The folder of the file.
        name: The name of the file without an ending. It becomes `.mp4`, or `.mkv` if MP4 does not take the codec.

    Raises:
        BadSampleError: The film cannot be read or breaks off, or has no times of frames.
        UserError: The disk or the network fails.
    """
    if not has_frame_times(film):
        raise BadSampleError(f"{film}: its frames carry no times, so it cannot be cut by copying: encode the clips")
    with open_film(film) as (container, stream):
        zero = (stream.start_time or 0) * stream.time_base
        if stream.codec_context is None:
            raise BadSampleError(f"{film}: an unknown codec: give another file")
        is_mp4 = stream.codec_context.name in _IN_MP4
        path = folder / f"{name}{'.mp4' if is_mp4 else '.mkv'}"
        seek_before(container, stream, float(zero) + start)
        with _writing(path, "mp4" if is_mp4 else "matroska") as written:
            origin = _copy_packets(container, stream, written, float(zero), start, end, film)
    offset = start - (float(origin * stream.time_base) - float(zero))
    return WrittenClip(path, round(max(offset, 0.0), 6), is_exact=False)


def _copy_packets(
    container: Any, stream: Any, written: Any, zero: float, start: float, end: float, film: FilmFile
) -> int:
    """Copy packets up to `end`. Return the time stamp that is 0 in the copy.

    It is that of the first packet. If the film has no key frame before `start`, it is that of `start`, and the first
    frame is on display from there on.
    """
    copied = written.add_stream_from_template(stream)
    origin: int | None = None
    last = 0.0
    begin, stop = (int((zero + time) / stream.time_base) for time in (start + EDGE / 2, end))
    for packet in _from_key_frame(container.demux(stream)):
        if packet.dts >= stop or (origin is None and packet.pts >= stop):
            break  # all later packets are shown later than they are decoded
        last = max(last, float((packet.pts + (packet.duration or 0)) * stream.time_base) - zero)
        shift = packet.pts if origin is None else origin
        if origin is None:
            origin = min(packet.pts, begin)
            packet.duration = (packet.duration or 0) + packet.pts - origin
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = copied
        written.mux(packet)
    else:
        check_end(film, start, end, last)
    if origin is None:
        raise BadSampleError(f"{film}: no key frame before {end:g} s: encode the clip, or give another file")
    return origin


def _from_key_frame(packets: Iterable[Any]) -> Iterator[Any]:
    """Yield packets from the first key frame on, with decoding times.

    What is shown before the key frame refers to frames that are not there, and is left out. Matroska does not say when
    its first packets are decoded: just before the next one, then.
    """
    first: int | None = None
    undated: list[Any] = []
    for packet in packets:
        if not packet.size or packet.pts is None or (first is None and not packet.is_keyframe):
            continue
        first = packet.pts if first is None else first
        if packet.pts < first:
            continue
        undated.append(packet)
        if packet.dts is not None:
            for back, one in enumerate(reversed(undated)):
                one.dts = min(one.pts, packet.dts - back)
            yield from undated
            undated = []
    for one in undated:
        one.dts = one.pts
        yield one


def encode_clip(film: FilmFile, start: float, end: float, folder: Path, name: str) -> WrittenClip:
    """Encode a piece of a film again: H.264 if FFmpeg has an encoder for it, else MPEG-4 part 2; in MP4.

    Frames are upright, keep their times, and the last one is on display until `end`. Odd sides lose a pixel, as the
    codecs have even ones.

    Args:
        film: The film.
        start: Start of the piece, in seconds from the film's first time stamp.
        end: End of the piece, in seconds.
        folder: The folder of the file.
        name: The name of the file without an ending; it becomes `.mp4`.

    Raises:
        BadSampleError: The film cannot be read or breaks off.
        UserError: The disk fails.
    """
    path = folder / f"{name}.mp4"
    count = not has_frame_times(film)
    try:
        _encode(frames_between(film, start, end, count=count), end - start, path)
    except UnusableTimesError:
        _encode(frames_between(film, start, end, count=True), end - start, path)
    return WrittenClip(path, 0.0, is_exact=True)


def _encode(frames: Iterator[TimedFrame], length: float, path: Path) -> None:
    import av

    base = Fraction(1, _TICKS)
    ticks = ((_tick(at), pixels) for at, pixels in frames)
    first = next(ticks)
    height, width = (side - side % 2 for side in first[1].shape[:2])
    codec = encoder()
    with _writing(path, "mp4") as written:
        stream = written.add_stream(codec, options=dict(_ENCODERS[codec]))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.time_base, context.gop_size, context.thread_count = base, _KEY_FRAMES, 1
        context.bit_rate = 0 if codec == "libx264" else _BIT_RATE
        durations: dict[int, int] = {}
        for (tick, pixels), (following, _) in pairwise(_closed(first, ticks, _tick(length))):
            if following <= tick:
                continue  # two frames in one tick: the later one is on display
            frame = av.VideoFrame.from_ndarray(pixels[:height, :width], format="rgb24")
            frame.pts, frame.time_base, durations[tick] = tick, base, following - tick
            _mux(written, stream.encode(frame), durations)
        _mux(written, stream.encode(), durations)


def _closed(first: tuple[int, Any], rest: Iterator[tuple[int, Any]], end: int) -> Iterator[tuple[int, Any]]:
    """Yield frames with their ticks, and then the end."""
    yield first
    last = first[0]
    for tick, pixels in rest:
        last = tick
        yield tick, pixels
    yield max(end, last + 1), None


def _mux(written: Any, packets: list[Any], durations: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = durations.pop(packet.pts, packet.duration or 0)
        written.mux(packet)


def _tick(time: float) -> int:
    """Return the last tick that is not after a time: a frame must be on display at its time."""
    return int((time + EDGE / 2) * _TICKS)


@cache
def encoder() -> str:
    """Return the name of the encoder that this FFmpeg has.

    Raises:
        BadSampleError: It has none of those that are known.
    """
    import av

    for name in _ENCODERS:
        try:
            return av.Codec(name, "w").name
        except (av.error.FFmpegError, ValueError):
            continue
    raise BadSampleError(f"this FFmpeg has no encoder of {', '.join(_ENCODERS)}: install another build of av")


@contextmanager
def _writing(path: Path, format_: str) -> Iterator[Any]:
    """Yield a container to write to. What is written has no date and no random number."""
    import av

    try:
        # Python's file raises the disk's own errors, such as no space; FFmpeg's would look like a bad film.
        with (
            open(path, "wb") as file,
            av.open(file, "w", format=format_, options={"fflags": "+bitexact"}) as written,
        ):
            yield written
    except av.error.FFmpegError as error:
        raise BadSampleError(f"{path.name}: cannot be written as a film: {error}; give another file") from error
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{path}: cannot be written: {reason}; make room, and run again to go on") from error
