"""Scene cuts of whole films: times in any container, rotation and rate, films that break off, memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from scene_films import compare, render

from core import frame_counting
from core.errors import BadSampleError
from core.film_pieces import PieceSettings, select_cuts
from core.films import FilmFile
from core.scene_cuts import SceneCuts, find_cuts
from core.videos import probe
from tests.model.clips import turn, without_frames

FPS = 10
LEVELS = (40, 200, 90)
SHOT = 20  # frames


def film(
    path: Path,
    codec: str = "libx264",
    stamps: Sequence[int] = range(3 * SHOT),
    size: tuple[int, int] = (96, 64),
    container: str | None = None,
    **options: str,
) -> Path:
    """Three shots of one shade each; the n-th frame is shown from stamps[n] tenths of a second on."""
    if codec == "libx264":
        options = {"bf": "2", "g": "15", "sc_threshold": "0", "preset": "ultrafast", **options}
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.max_b_frames = int(options.get("bf", 0)) if codec == "libx264" else 0
        for stamp in stamps:
            pixels = np.full((size[1], size[0], 3), LEVELS[min(stamp // SHOT, 2)], np.uint8)
            pixels[:8, : 8 + stamp % 8] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def facts(found: SceneCuts) -> tuple[list[float], list[float], list[float], float, int]:
    return list(found.cut_times), list(found.cut_scores), list(found.key_times), found.length, found.frames


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.ts", "libx264"),
        ("a.avi", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.h264", "libx264"),
    ],
    ids=lambda text: text,
)
def test_cuts_are_at_the_first_frames_of_shots(tmp_path: Path, name: str, codec: str) -> None:
    path = film(tmp_path / name, codec)
    found = find_cuts(str(path))
    assert list(found.cut_times) == pytest.approx([2, 4], abs=1e-3)
    assert found.frames == 60
    assert found.length == pytest.approx(6, abs=1e-3)
    assert found.length == pytest.approx(probe(path, fps=100).times[-1] + 0.01, abs=0.011)
    # The corner of the picture is white and moves, so the score is a little less than that of the shades.
    shades = [100 / 256 * 219 / 255 * abs(after - before) for before, after in ((40, 200), (200, 90))]
    assert list(found.cut_scores) == pytest.approx(shades, rel=0.08)


def test_concatenated_films_are_counted(tmp_path: Path) -> None:
    one = film(tmp_path / "one.ts").read_bytes()
    (tmp_path / "both.ts").write_bytes(one + one)
    found = find_cuts(str(tmp_path / "both.ts"))
    assert list(found.cut_times) == pytest.approx([2, 4, 6, 8, 10], abs=0.11)
    assert found.length == pytest.approx(12, abs=0.11)


def test_decreasing_times_are_replaced_by_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guesses of FFmpeg for an AVI, taken for times of the file."""
    path = film(tmp_path / "guessed.avi", bf="3", **{"x264-params": "b-adapt=0:b-pyramid=normal:scenecut=0"})
    counted = facts(find_cuts(str(path)))
    assert counted[0] == pytest.approx([2, 4])
    monkeypatch.setattr(frame_counting, "WITHOUT_TIMES", frozenset())
    assert facts(find_cuts(str(path))) == counted


def test_times_of_a_variable_rate_are_those_of_the_file(tmp_path: Path) -> None:
    stamps = [*range(12), 19, *range(20, 24), 30, 35, *range(41, 60, 3)]
    found = find_cuts(str(film(tmp_path / "variable.mkv", stamps=stamps)))
    assert list(found.cut_times) == pytest.approx([2.0, 4.1])
    assert found.frames == len(stamps)


def test_times_count_from_the_start_of_the_stream(tmp_path: Path) -> None:
    late = film(tmp_path / "late.mkv", stamps=range(10, 60))
    assert list(find_cuts(str(late)).cut_times) == pytest.approx([1, 3])


def test_rotated_film_has_the_same_facts(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    upright = facts(find_cuts(str(path)))
    turn(path, (0, 1, -1, 0))
    assert probe(path).height == 96
    assert facts(find_cuts(str(path))) == upright


def test_key_times_are_those_of_key_packets(tmp_path: Path) -> None:
    assert list(find_cuts(str(film(tmp_path / "a.mp4"))).key_times) == pytest.approx([0, 1.5, 3, 4.5])
    open_gop = film(tmp_path / "open.mkv", **{"x264-params": "open-gop=1:keyint=15:scenecut=0:bframes=2"})
    with av.open(str(open_gop)) as container:
        marked = sorted(float(p.pts * p.time_base) for p in container.demux(video=0) if p.is_keyframe and p.size)
    assert len(marked) >= 4
    assert list(find_cuts(str(open_gop)).key_times) == pytest.approx(marked)
    counted = find_cuts(str(film(tmp_path / "a.avi", "mpeg4", g="12")))
    assert list(counted.key_times) == pytest.approx([0, 1.2, 2, 3.2, 4, 5.2])  # this encoder sets some at cuts


def test_film_inside_of_another_file_is_read(tmp_path: Path) -> None:
    path = film(tmp_path / "a.ts")
    member = FilmFile("films.tar/a.ts", open=partial(open, path, "rb"), length=path.stat().st_size)
    assert facts(find_cuts(member)) == facts(find_cuts(str(path)))


def test_frames_of_another_size_in_the_middle_are_read(tmp_path: Path) -> None:
    parts = [film(tmp_path / f"{size[0]}.h264", size=size).read_bytes() for size in ((96, 64), (320, 240))]
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    found = find_cuts(str(tmp_path / "both.h264"))
    assert list(found.cut_times) == pytest.approx([2, 4, 6, 8, 10])
    assert found.frames == 120


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_film_of_one_frame_is_one_piece(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    found = find_cuts(str(film(tmp_path / name, codec, stamps=[0])))
    assert (list(found.cut_times), list(found.key_times), found.frames) == ([], [0.0], 1)
    assert found.length == pytest.approx(0.1, abs=0.02)


def truncated(tmp_path: Path, share: float) -> Path:
    """The start of a film of six seconds; its header says six."""
    whole = film(tmp_path / "whole.mkv", qp="0").read_bytes()
    (tmp_path / "part.mkv").write_bytes(whole[: int(len(whole) * share)])
    return tmp_path / "part.mkv"


def test_film_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadSampleError, match=r"part\.mkv: breaks off: at [23]\.\d s of 6\.0 s; give a whole file$"):
        find_cuts(str(truncated(tmp_path, 0.55)), 6.0)


def test_film_that_lacks_its_last_frames_has_facts(tmp_path: Path) -> None:
    found = find_cuts(str(truncated(tmp_path, 0.95)), 6.0)
    assert 5 < found.length < 6
    assert list(found.cut_times) == pytest.approx([2, 4])


def test_broken_film_of_unknown_duration_is_an_error(tmp_path: Path) -> None:
    path = damaged(film(tmp_path / "a.mp4", qp="0"), 0.5)
    with pytest.raises(BadSampleError, match=r"a\.mp4: breaks off: at \d\.\d s; give a whole file$"):
        find_cuts(str(path))


def damaged(path: Path, sound: float) -> Path:
    """Overwrite the frames of an mp4 with zeros, behind a share of them that stays sound."""
    data = path.read_bytes()
    media, index = data.index(b"mdat") + 4, data.index(b"moov") - 4
    start = media + int((index - media) * sound)
    path.write_bytes(data[:start] + bytes(index - start) + data[index:])
    return path


def test_hostile_films_are_one_line_errors(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    endless = film(tmp_path / "endless.mkv", stamps=[0, 1, 20_000_000])
    for path, reason in {
        damaged(film(tmp_path / "blank.mp4"), 0.0): "no frame can be decoded: give another file",
        without_frames(tmp_path / "sound.mp4"): "no video stream: give a video file",
        _sound_only(tmp_path / "song.m4a"): "no video stream: give a video file",
        tmp_path / "noise.mp4": "cannot be read as a video",
        endless: "impossible length: ends at 2,000,000 s by its times",
    }.items():
        with pytest.raises(BadSampleError, match=f"^{path}: {reason}") as error:
            find_cuts(str(path), 1.0)
        assert "\n" not in str(error.value)


def _sound_only(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        sound: Any = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux([*sound.encode(silence), *sound.encode()])
    return path


def test_memory_does_not_grow_with_the_length_of_a_film(tmp_path: Path) -> None:
    """Two hours of black at a frame every four seconds, beside four minutes of it."""
    find_cuts(str(film(tmp_path / "short.mkv")))  # what is imported once
    peaks = []
    for frames in (60, 1800):
        path = film(tmp_path / f"{frames}.mkv", stamps=[59 + 40 * k for k in range(frames)], size=(240, 136))
        tracemalloc.start()
        found = find_cuts(str(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (list(found.cut_times), found.frames) == ([], frames)
        assert found.length == pytest.approx(4 * frames, abs=4)
    assert peaks[1] < peaks[0] + 100_000


def test_hard_cuts_of_joined_shots_are_found(tmp_path: Path) -> None:
    """Photographs and patterns that move, shake and zoom, with flashes, fades and dissolves between the hard cuts."""
    scores = []
    for seed, (name, codec) in enumerate({"a.mp4": "libx264", "b.mkv": "mpeg4", "c.mp4": "libx264"}.items()):
        truth = render(tmp_path / name, seed, shots=10, size=(240, 136), codec=codec, is_variable=name == "c.mp4")
        found = find_cuts(str(tmp_path / name), truth.length)
        settings = PieceSettings()
        times = select_cuts(found.cut_times, found.cut_scores, settings.min_score, settings.min_gap)
        scores.append(compare(times, truth.cuts, tolerance=0.1))
    right, given, true = (sum(getattr(score, name) for score in scores) for name in ("right", "found", "true"))
    assert true >= 20
    assert right / given >= 0.9
    assert right / true >= 0.9
