"""Films whose pictures tell their number, whatever a codec does to the shades."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from core.videos import Frame, decode, probe

_BITS, _SIDE = 8, 16


def picture(number: int) -> Frame:
    """Its number in the binary system: a square for each bit, white for 1."""
    pixels = np.full((64, 128, 3), 60, np.uint8)
    for bit in range(_BITS):
        pixels[:_SIDE, bit * _SIDE : (bit + 1) * _SIDE] = 255 * (number >> bit & 1)
    return pixels


def number_in(frame: Frame) -> int:
    middle = _SIDE // 2
    return sum(int(frame[middle, bit * _SIDE + middle, 1] > 128) << bit for bit in range(_BITS))


def write(path: Path, stamps: Sequence[float], gop: int = 10, first: int = 0, **options: str) -> Path:
    """A film in H.264 with a key frame every `gop` pictures. Picture first + k is shown from stamps[k] seconds on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": str(gop), "sc_threshold": "0", **options})
        stream.height, stream.width, stream.pix_fmt = 64, 128, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, stamp in enumerate(stamps, first):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = round(stamp * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(path: str | Path, start: float = 0.0, end: float | None = None, fps: float = 10) -> list[int]:
    """The numbers of the pictures that are shown at start, start + 1 / fps, … seconds."""
    return decode(probe(path, fps=fps, start=start, end=end), number_in)[0]
