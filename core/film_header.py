"""Read the header of a film: displayed size, length, rate, codec. Of its frames one is decoded, the first.

The first frame says how the film is turned: PyAV gives the display matrix of a frame, not that of a stream. It also
shows that the film can be decoded. Where the header lacks the length, or may be wrong about it, the last packets are
read. Only raw streams, joined files, and films without an index and a length, are read as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from core.containers import open_film
from core.errors import BadSampleError
from core.film_length import LOST, Length, header_length, last_time, read_length, start_of
from core.films import FilmFile
from core.frame_counting import JOINED, WITHOUT_TIMES, count_frames, has_times, may_be_joined
from core.frame_sampling import FPS, LONGEST

_SEARCHED, _SEARCHED_BYTES = 1000, 64 << 20
"""Packets, and their bytes, in which the first frame is searched. A film that is cut out of another begins with frames
that cannot be decoded; the longest usual distance of key frames is 250 to 300."""

_TIMES, _REORDERED = 40, 12
"""Packets whose times are compared, and how many of the last ones are not: frames may come in another order than they
are shown, so these may lack neighbours."""

_INDEXED = 20_000
"""Entries of an MP4's index that are compared, at most: eleven minutes at 30 frames per second."""

_ROUNDING = 0.0025
"""Seconds by which distances between frames may differ in a film of constant rate: Matroska rounds to milliseconds."""


@dataclass(frozen=True)
class FilmHeader:
    """What a film's header says.

    Attributes:
        width: Width of an upright frame, in pixels.
        height: Height of an upright frame, in pixels.
        container: Container by FFmpeg's name: mov (also MP4), matroska (also WebM), avi, mpegts, …
        duration: Length in seconds.
        fps: Average frames per second; None: unknown.
        frames: Number of frames by the container, else by duration and rate; None: unknown.
        codec: Codec by FFmpeg's name: h264, hevc, vp9, av1, …
        has_audio: Whether there is an audio stream.
        variable_rate: Whether distances between frames differ, by the index of an MP4, else by the first 40 packets;
            None: unknown.
    """

    width: int
    height: int
    container: str
    duration: float
    fps: float | None
    frames: int | None
    codec: str
    has_audio: bool
    variable_rate: bool | None


def read_film_header(film: str | Path | FilmFile) -> FilmHeader:
    """Read the header of a film, and decode its first frame.

    Raises:
        BadSampleError: It is no film, has no frame or no length, is cut off, or says impossible things about itself.
        FilmLostError: The disk or the network failed.
    """
    with open_film(film) as (container, stream):
        stream.codec_context.thread_count = 1  # one frame: threads would only cost time
        kinds = container.format.name.split(",")
        if kinds[0] == "mov":
            _check_index(film, container, stream)
        constant = bool(WITHOUT_TIMES.intersection(kinds))
        first, times, packets = _first_frame(film, container, stream, 0 if constant or kinds[0] == "mov" else _TIMES)
        entries = list(islice(stream.index_entries, _INDEXED)) if kinds[0] == "mov" else []
        variable = False if constant else _is_variable([entry.timestamp for entry in entries] or times, stream)
        frames = stream.frames
        if kinds[0] == "mov" and frames:  # its number may be wrong, or lack fragments; the index is what is decoded
            frames = len(stream.index_entries)
        # All packets are read to be sure, but only of a film that looks so at a few places.
        joined = kinds[0] in JOINED and may_be_joined(container, stream) and not has_times(film, kinds[0])
        if (constant and kinds[0] != "avi") or first.time is None or joined:
            count, seconds = count_frames(film, kinds[0])
            frames, fps = round(seconds / count.step), 1 / count.step
        else:
            seconds = _length(film, container, stream, first.time, kinds[0])
            fps = float(stream.average_rate or stream.guessed_rate or 0) or frames / seconds
            if kinds[0] == "avi":  # FFmpeg corrects the length of a file that is cut off
                _check_end(film, Length(frames / fps if fps else 0.0, seconds))
        quarters = round(first.rotation / 90) % 4
        width, height = (first.height, first.width) if quarters % 2 else (first.width, first.height)
        codec = stream.codec_context.codec.canonical_name
        has_audio = bool(container.streams.audio)
    if not 0 <= fps <= FPS[1]:
        raise BadSampleError(f"{film}: impossible rate: {fps:g} frames per second; give a video of at most {FPS[1]}")
    frames = frames or packets or round(seconds * fps) or None
    return FilmHeader(width, height, kinds[0], seconds, fps or None, frames, codec, has_audio, variable)


def _first_frame(film: str | Path | FilmFile, container: Any, stream: Any, compared: int) -> tuple[Any, list[int], int]:
    """Return the first frame, the sorted times of the first packets, and the number of packets if these are all.

    Times are presentation times in units of the stream, of so many packets as are `compared`. The number is 0 if there
    are more packets.
    """
    first, times, searched, packets = None, list[int](), 0, 0
    for number, packet in enumerate(container.demux(stream), 1):
        packets += bool(packet.size)
        searched += packet.size
        first = next(iter(packet.decode()), None) if first is None else first
        if packet.pts is not None and number <= compared:
            times.append(packet.pts)
        if (first is not None and number >= compared) or number >= _SEARCHED or searched > _SEARCHED_BYTES:
            packets = 0
            break
    if first is None:
        raise BadSampleError(f"{film}: a video without frames: give another file")
    times.sort()
    return first, times[: len(times) - min(_REORDERED, len(times) // 4)], packets


def _is_variable(times: list[int], stream: Any) -> bool | None:
    """Return whether the distances between ascending times differ by more than rounding explains."""
    distances = [after - before for before, after in pairwise(times)]
    if len(distances) < 2:
        return None
    spread = max(distances) - min(distances)
    return bool(spread > 1 and spread * stream.time_base > _ROUNDING)


def _check_index(film: str | Path | FilmFile, container: Any, stream: Any) -> None:
    """Refuse an MP4 whose index names bytes behind the end of the file."""
    entries = stream.index_entries
    end = entries[len(entries) - 1].pos + entries[len(entries) - 1].size if len(entries) else 0
    if end > container.size > 0:
        raise BadSampleError(
            f"{film}: cut off: {container.size:,} of at least {end:,} bytes are there; give a whole file"
        )


def _length(film: str | Path | FilmFile, container: Any, stream: Any, first: float, kind: str) -> float:
    """Return the length in seconds: by the header of an MP4 with an index, else the last packets are read, too."""
    if kind == "mov" and stream.frames:
        length = Length(header_length(container, stream, first), 0.0)
    else:
        length = read_length(container, stream, first)
        if not length.last:  # no index to seek in
            container.seek(0)
            length = Length(length.header, last_time(container, stream, start_of(stream, first)))
        _check_end(film, length)
    if not 0 < length.seconds <= LONGEST:
        raise BadSampleError(f"{film}: impossible length: {length.seconds:g} seconds; give a video with a length")
    return length.seconds


def _check_end(film: str | Path | FilmFile, length: Length) -> None:
    """Refuse a film that ends long before the end that its header names."""
    if length.header - length.last > max(LOST[0] * length.header, LOST[1]):
        raise BadSampleError(
            f"{film}: cut off: ends at {length.last:.1f} s of {length.header:.1f} s; give a whole file"
        )
