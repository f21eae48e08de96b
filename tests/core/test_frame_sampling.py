"""Which frames stand for the sampled times. The oracle of `original` is FFmpeg's own filter."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from core.errors import BadSampleError
from core.frame_sampling import check_sampling
from core.videos import Frame, decode, probe

BITS = 10
MILLI = Fraction(1, 1000)
NTSC = Fraction(24000, 1001)
RATES = [*map(Fraction, (5, 10, 12.5, 24, 25, 60)), NTSC, NTSC * 5 / 4]


def picture(number: int) -> Frame:
    """The bits of a number, as black and white columns."""
    bits = [number >> bit & 1 for bit in range(BITS)]
    return np.repeat(np.repeat(np.array(bits, np.uint8) * 255, 16)[None, :, None], 16, 0).repeat(3, 2)


def number_in(frame: Frame) -> int:
    return sum(1 << bit for bit in range(BITS) if frame[8, 16 * bit + 8, 0] > 127)


def film(path: Path, stamps: Sequence[int], base: Fraction, rate: Fraction | int = 30) -> Path:
    """The n-th picture at stamps[n] * base seconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 16, 16 * BITS, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = stamp, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def filtered(path: Path, fps: float, cut: tuple[float, float] | None = None) -> list[int]:
    """The frames out of `fps=round=down`; with `cut` as `ffmpeg -ss START -t SECONDS` passes them to it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        zero = stream.start_time
    graph = av.filter.Graph()
    nodes: list[Any] = [graph.add_buffer(template=stream, time_base=stream.time_base)]
    if cut is not None:
        start = round(cut[0] / stream.time_base) + zero
        nodes += [graph.add("trim", f"start_pts={start}:duration={cut[1]}"), graph.add("setpts", f"PTS-{start}")]
    nodes += [graph.add("fps", f"fps={fps}:round=down"), graph.add("buffersink")]
    for node, following in pairwise(nodes):
        node.link_to(following)
    graph.configure()
    numbers = []
    for frame in [*frames, None]:
        try:
            graph.push(frame)
        except av.error.EOFError:
            break  # the cut has ended
        while True:
            try:
                numbers.append(number_in(graph.pull().to_ndarray(format="rgb24")))
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    return numbers


def original(path: Path, fps: float, **options: Any) -> list[int]:
    video = probe(path, fps, 10_000, sampling="original", **options)
    taken, times = decode(video, number_in)
    start = options.get("start", 0.0)
    assert times == pytest.approx([start + k / fps for k in range(len(taken))])
    return taken


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_original_sampling_equals_the_filter_of_ffmpeg(tmp_path: Path, rate: Fraction, ending: str) -> None:
    path = film(tmp_path / f"a.{ending}", range(round(4.58 * rate)), 1 / rate, rate)
    for fps in (0.5, 1, 2, 3, 7):
        assert original(path, fps) == filtered(path, fps)


def test_original_sampling_takes_the_last_frame_of_a_second(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", range(110), Fraction(1, 25), 25)
    assert original(path, 1) == [24, 49, 74, 99]
    path = film(tmp_path / "b.mp4", range(110), Fraction(1, 24), 24)
    assert original(path, 1) == [23, 47, 71, 95]
    exact, times = decode(probe(path), number_in)
    assert (exact, times) == ([0, 24, 48, 72, 96], (0, 1, 2, 3, 4))


@pytest.mark.parametrize("seed", range(6))
def test_original_sampling_of_variable_rate_equals_the_filter(tmp_path: Path, seed: int) -> None:
    """Also where the first time stamp is not 0."""
    steps = np.random.default_rng(seed).choice([10, 33, 40, 100, 700, 1300, 2600], 40)
    stamps = (np.cumsum(steps) - steps[0]).tolist()
    path = film(tmp_path / "a.mkv", stamps, MILLI)
    late = film(tmp_path / "late.mkv", [5000 + stamp for stamp in stamps], MILLI)
    for fps in (0.5, 1, 3):
        assert original(path, fps) == original(late, fps) == filtered(path, fps)


CUTS = [(1, 2), (1, 2.5), (1, 1.99), (1, 2.01), (0.5, 2), (1.01, 2), (0, 2.2), (0.3, 3.96), (2.72, 1.3)]


@pytest.mark.parametrize("rate", [Fraction(10), NTSC, Fraction(25), Fraction(60)], ids=str)
def test_original_sampling_of_a_part_equals_a_cut_by_ffmpeg(tmp_path: Path, rate: Fraction) -> None:
    path = film(tmp_path / "a.mp4", range(round(4.58 * rate)), 1 / rate, rate)
    for start, seconds in CUTS:
        assert original(path, 1, start=start, end=start + seconds) == filtered(path, 1, (start, seconds)), (
            start,
            seconds,
        )


def test_original_sampling_of_less_than_a_slot_gives_one_frame(tmp_path: Path) -> None:
    """The filter gives none, and the reference fails."""
    path = film(tmp_path / "a.mp4", range(12), Fraction(1, 24), 24)
    assert filtered(path, 1) == []
    assert original(path, 1) == [11]
    assert original(path, 1, start=0.25) == [11]
    assert original(path, 1, start=0.0, end=0.25) == [5]


def test_original_sampling_is_thinned_as_by_the_reference(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", range(250), Fraction(1, 25), 25)
    every = filtered(path, 2)
    picked = np.linspace(0, len(every) - 1, 7, dtype=int)
    taken, times = decode(probe(path, 2, 7, sampling="original"), number_in)
    assert taken == [every[k] for k in picked]
    assert times == tuple(k / 2 for k in picked)


@pytest.mark.parametrize("sampling", ["exact", "original"])
def test_times_of_a_stream_do_not_depend_on_where_it_stops(tmp_path: Path, sampling: Any) -> None:
    path = film(tmp_path / "a.mp4", range(250), Fraction(1, 25), 25)
    whole = probe(path, 1, 5, end=9.0, sampling=sampling, until=9.0)
    for until in range(10):
        part = probe(path, 1, 5, end=9.0, sampling=sampling, until=float(until))
        wanted = [time for time in whole.times if time <= until]
        assert (part.times, part.moments) == (whole.times[: len(wanted)], whole.moments[: len(wanted)])


def test_stream_ends_with_the_frame_at_its_end(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", range(250), Fraction(1, 25), 25)
    assert probe(path, end=5.0, until=5.0).times == (0, 1, 2, 3, 4, 5)
    assert probe(path, end=5.0).times == (0, 1, 2, 3, 4)
    assert probe(path, start=5.0, end=5.0, until=5.0).times == (5,)
    assert probe(path, end=99.0, until=10.5).times == tuple(range(10))
    with pytest.raises(BadSampleError, match=r"a\.mp4: 12 s is behind the end, 10\.0 s: give times in seconds"):
        probe(path, end=99.0, until=12.0)


@pytest.mark.parametrize("until", ["5", True, -1, 0.5, float("nan"), 10**400])
def test_invalid_end_of_a_stream_is_refused(until: Any) -> None:
    with pytest.raises(BadSampleError, match=r"a: fps 1, .*give numbers, fps above 0"):
        check_sampling("a", 1, start=1.0, until=until)
