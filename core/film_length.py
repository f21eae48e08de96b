"""The length of a film, from its header and its last packets."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

LOST = 0.1, 1.0
"""What may be missing at the end: a fraction of the length, or seconds. Containers round durations, and audio may be
longer."""


@dataclass(frozen=True)
class Length:
    """How long a film is, in seconds.

    Attributes:
        header: By its header; 0 if that does not say it.
        last: End of the last packet that could be read after a seek to the end; 0 if none could be.
    """

    header: float
    last: float

    @property
    def seconds(self) -> float:
        """The length. A header may count in decoding order or from before the first frame, or may lack it."""
        return max(self.header, self.last)


def start_of(stream: Any, first: float) -> float:
    """Return the time that counts as 0, in seconds: the header's start of the stream, else that of the first frame."""
    return first if stream.start_time is None else float(stream.start_time * stream.time_base)


def header_length(container: Any, stream: Any, first: float) -> float:
    """Return the length of a stream by the header, in seconds; 0 if it does not say it.

    Args:
        container, stream: From `core.containers.open_film`.
        first: Time of the first frame, in seconds.
    """
    seconds = float((stream.duration or 0) * stream.time_base)
    return seconds or max((container.duration or 0) / 1e6 - start_of(stream, first), 0.0)


def read_length(container: Any, stream: Any, first: float) -> Length:
    """Return the length of a stream from its header and its last packets: the container is at its end afterwards."""
    import av

    with suppress(av.error.FFmpegError):
        container.seek(2**62, stream=stream)  # the last key frame
    last = last_time(container, stream, start_of(stream, first))
    return Length(header_length(container, stream, first), last)


def last_time(container: Any, stream: Any, zero: float) -> float:
    """Return the end of the last packet from here on, in seconds after `zero`; 0 if there is none."""
    import av

    last = 0.0
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            if packet.pts is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * stream.time_base) - zero)
    return last
