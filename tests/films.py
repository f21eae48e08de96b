"""Films that tests make of given pictures, without loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def blank(level: int, height: int = 64, width: int = 96) -> Picture:
    """A picture of one shade of grey."""
    return np.full((height, width, 3), level, np.uint8)


def render(path: Path, pictures: Iterable[Picture], rate: int = 10, stamps: Sequence[int] | None = None) -> Path:
    """Encode RGB pictures bit by bit (FFV1; in mp4 and avi H.264, which changes them by a level or two).

    Args:
        path: The film; its ending decides the container.
        pictures: Of one size.
        rate: Pictures a second.
        stamps: When each picture is shown, in 1 / rate seconds; None: one after another.
    """
    lossless = path.suffix == ".mkv"
    with av.open(str(path), "w") as output:
        codec, options = ("ffv1", {}) if lossless else ("libx264", {"qp": "1", "x264-params": "b-adapt=0"})
        stream = output.add_stream(codec, rate=rate, options=options)
        stream.codec_context.max_b_frames = 0 if lossless else 2
        stream.pix_fmt = "bgr0" if lossless else "yuv420p"
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number if stamps is None else stamps[number], Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def with_decoding_times(film: Path, path: Path) -> Path:
    """The film with its frames' decoding times as the times at which they are shown: with B-frames, times go back."""
    with av.open(str(film)) as read, av.open(str(path), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream, packet.pts = stream, packet.dts
                written.mux(packet)
    return path
