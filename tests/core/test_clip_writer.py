"""A piece of a film as a file of its own: it shows the film's frames at the film's times."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from core import clip_writer
from core.clip_frames import frames_between
from core.clip_writer import WrittenClip, copy_clip, encode_clip
from core.errors import BadSampleError, UserError
from core.films import FilmFile
from core.videos import decode, probe
from tests.core import test_videos
from tests.core.numbered_films import number_in, shown
from tests.core.numbered_films import write as write_film
from tests.model import clips

TENTHS = [k / 10 for k in range(100)]
Write = Callable[[FilmFile, float, float, Path, str], WrittenClip]
both = pytest.mark.parametrize("write", [copy_clip, encode_clip])


def of_path(path: Path) -> FilmFile:
    return FilmFile(path.name, str(path), length=path.stat().st_size)


def of_bytes(path: Path) -> FilmFile:
    return FilmFile(path.name, open=lambda: open(path, "rb"), length=path.stat().st_size)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds with a key frame a second; picture k is shown at k / 10 s."""
    return write_film(tmp_path_factory.mktemp("film") / "a.mp4", TENTHS)


@both
@pytest.mark.parametrize(("start", "end"), [(3.0, 5.0), (3.4, 5.75), (2.95, 3.5), (0.0, 1.0), (8.35, 9.9)])
def test_clip_shows_the_film_at_its_times(film: Path, tmp_path: Path, write: Write, start: float, end: float) -> None:
    clip = write(of_path(film), start, end, tmp_path, "clip")
    length = end - start
    expected = shown(film, start, end)
    assert shown(clip.path, clip.start, clip.start + length) == expected
    assert expected[0] == int(start * 10 + 1e-6)


def test_copy_begins_at_the_key_frame_before_the_clip(film: Path, tmp_path: Path) -> None:
    clip = copy_clip(of_path(film), 3.4, 5.75, tmp_path, "clip")
    assert (clip.path.name, clip.is_exact, clip.start) == ("clip.mp4", False, pytest.approx(0.4, abs=1e-6))
    assert shown(clip.path, 0, 1)[0] == 30
    with av.open(str(film)) as whole, av.open(str(clip.path)) as part:
        copied = {bytes(packet) for packet in part.demux(video=0) if packet.size}
        assert copied <= {bytes(packet) for packet in whole.demux(video=0) if packet.size}
    assert copy_clip(of_path(film), 3.0, 5.0, tmp_path, "other").start == pytest.approx(0, abs=1e-6)


def test_encoded_clip_has_exactly_the_piece(film: Path, tmp_path: Path) -> None:
    clip = encode_clip(of_path(film), 3.45, 5.75, tmp_path, "clip")
    assert (clip.start, clip.is_exact) == (0.0, True)
    with av.open(str(clip.path)) as read:
        stream = read.streams.video[0]
        times = [frame.time for frame in read.decode(stream)]
        length = float(stream.duration * stream.time_base)
    assert times == pytest.approx([0, *np.arange(0.05, 2.3, 0.1)], abs=2e-5)
    assert length == pytest.approx(2.3, abs=1e-4)


@both
def test_frames_of_uneven_distances_keep_their_times(tmp_path: Path, write: Write) -> None:
    stamps = [0, 0.1, 0.5, 0.52, 0.54, 1.3, 1.4, 2.9, 3.0, 3.01, 3.5, 4.2]
    film = write_film(tmp_path / "a.mp4", stamps, gop=4)
    clip = write(of_path(film), 0.53, 4.0, tmp_path, "clip")
    assert shown(clip.path, clip.start, clip.start + 3.47, fps=100) == shown(film, 0.53, 4.0, fps=100)


@both
@pytest.mark.parametrize("ending", ["mkv", "ts", "mov"])
def test_clips_of_other_containers_show_the_film(tmp_path: Path, write: Write, ending: str) -> None:
    """Its key frames are followed by frames that are shown before them, and refer to what is before."""
    film = write_film(tmp_path / f"a.{ending}", TENTHS[:30], **{"x264-params": "open-gop=1:b-adapt=0:bframes=3"})
    with av.open(str(film)) as read:
        packets = [(packet.pts, packet.is_keyframe) for packet in read.demux(video=0) if packet.size]
    assert any(is_key and after < time for (time, is_key), (after, _) in pairwise(packets))
    for start, end in ((0.0, 1.0), (1.3, 2.4), (1.05, 1.9), (0.95, 1.5)):
        clip = write(of_path(film), start, end, tmp_path, f"clip{start}")
        assert shown(clip.path, clip.start, clip.start + end - start) == shown(film, start, end)
        with av.open(str(clip.path)) as read:
            times = [packet.pts for packet in read.demux(video=0) if packet.size]
        assert min(times) == times[0]


def cut_within_a_group(folder: Path, b_frames: int) -> FilmFile:
    """A stream whose first frames lack their key frame. The first that can be decoded, picture 20, is that of 0.8 s."""
    params = {"x264-params": "keyint=20:min-keyint=20:scenecut=0:b-adapt=0"}
    whole = test_videos.film(folder / "whole.ts", b_frames=b_frames, stamps=range(45), **params)
    with av.open(str(whole)) as read:
        twelfth = [packet.pos for packet in read.demux(video=0) if packet.size][12]
    data = whole.read_bytes()
    (folder / "cut.ts").write_bytes(data[:564] + data[twelfth:])  # the first three packets say what the others are
    return of_path(folder / "cut.ts")


@both
@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (0.53, 2.0), (0.0, 0.93), (0.0, 0.85), (1.0, 2.0), (1.5, 2.9)])
def test_clip_before_the_first_key_frame_keeps_its_times(
    tmp_path: Path, write: Write, b_frames: int, start: float, end: float
) -> None:
    """Its first frame is on display from the start on, as at the start of the film."""
    film = cut_within_a_group(tmp_path, b_frames)
    clip = write(film, start, end, tmp_path, "clip")
    expected = [20 + max(0, int((start - 0.8) * 10 + k + 1e-6)) for k in range(math.ceil((end - start) * 10))]
    assert test_videos.shown(tmp_path / "cut.ts", start=start, end=end) == expected
    assert test_videos.shown(clip.path, start=clip.start, end=clip.start + end - start) == expected


@both
@pytest.mark.parametrize("b_frames", [0, 3])
def test_clip_that_ends_before_the_first_key_frame_is_refused(tmp_path: Path, write: Write, b_frames: int) -> None:
    with pytest.raises(BadSampleError, match=r"cut.ts: no (key )?frame before 0.75 s"):
        write(cut_within_a_group(tmp_path, b_frames), 0.0, 0.75, tmp_path, "clip")


def test_films_that_say_no_times_are_only_encoded(tmp_path: Path) -> None:
    film = of_path(test_videos.film(tmp_path / "a.avi", "mpeg4", 0))
    with pytest.raises(BadSampleError, match=r"a.avi: its frames carry no times, so it cannot be cut by copying"):
        copy_clip(film, 1.0, 2.0, tmp_path, "clip")
    clip = encode_clip(film, 1.0, 2.0, tmp_path, "clip")
    assert decode(probe(clip.path, fps=10), test_videos.number_in)[0] == list(range(10, 20))


@both
def test_film_that_is_no_file_is_cut(film: Path, tmp_path: Path, write: Write) -> None:
    clip = write(of_bytes(film), 3.4, 5.0, tmp_path, "clip")
    assert shown(clip.path, clip.start, clip.start + 1.6) == shown(film, 3.4, 5.0)


@both
def test_turned_film_gives_an_upright_clip(tmp_path: Path, write: Write) -> None:
    film = clips.turn(clips.write(tmp_path / "a.mp4", TENTHS), (0, 1, -1, 0))
    clip = write(of_path(film), 1.0, 2.0, tmp_path, "clip")
    whole, part = probe(film, start=1.0), probe(clip.path, start=clip.start)
    assert (part.height, part.width) == (whole.height, whole.width) == (96, 64)
    (expected, *_), _ = decode(whole, np.copy)
    (shown_first, *_), _ = decode(part, np.copy)
    assert np.abs(expected.astype(int) - shown_first).mean() < 3


@both
def test_same_piece_gives_the_same_bytes_and_no_sound(tmp_path: Path, write: Write) -> None:
    film = of_path(clips.real("bigbuckbunny"))
    first, second = (write(film, 1.5, 2.0, tmp_path, name).path for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    with av.open(str(first)) as read:
        assert [stream.type for stream in read.streams] == ["video"]


@pytest.mark.parametrize("b_frames", [0, 2])
def test_codec_that_mp4_lacks_is_copied_into_matroska(tmp_path: Path, b_frames: int) -> None:
    path = test_videos.film(tmp_path / "a.mkv", "mpeg2video", b_frames, g="6", bf=str(b_frames))
    for start in (0.5, 1.5, 1.9):
        clip = copy_clip(of_path(path), start, 2.5, tmp_path, f"clip{start}")
        assert clip.path.suffix == ".mkv"
        video = probe(clip.path, fps=10, start=clip.start, end=clip.start + 2.5 - start)
        assert decode(video, test_videos.number_in)[0] == list(range(round(start * 10), 25))
        again = copy_clip(of_path(path), start, 2.5, tmp_path, "again")
        assert clip.path.read_bytes() == again.path.read_bytes()


def test_odd_sides_lose_a_pixel(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as written:
        stream = written.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 63, 97, "yuv444p"
        for _ in range(20):
            written.mux(stream.encode(av.VideoFrame.from_ndarray(clips.grey(90, 63, 97), format="rgb24")))
        written.mux(stream.encode())
    clip = encode_clip(of_path(tmp_path / "a.mp4"), 0.5, 1.5, tmp_path, "clip")
    part = probe(clip.path)
    assert (part.height, part.width) == (62, 96)


@both
def test_piece_that_the_film_lacks_is_refused(film: Path, tmp_path: Path, write: Write) -> None:
    with pytest.raises(BadSampleError, match=r"a.mp4: breaks off: at 9.9 s, before 14.0 s"):
        write(of_path(film), 9.0, 14.0, tmp_path, "clip")
    with pytest.raises(BadSampleError, match=r"breaks off"):
        write(of_path(film), 10.5, 10.9, tmp_path, "clip")


@both
def test_changed_film_and_playlist_are_refused(film: Path, tmp_path: Path, write: Write) -> None:
    with pytest.raises(BadSampleError, match="index the pool again"):
        write(FilmFile("a.mp4", str(film), length=7), 1.0, 2.0, tmp_path, "clip")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n{film}\n")
    with pytest.raises(BadSampleError, match=r"playlist|cannot be read"):
        write(of_path(tmp_path / "list.mp4"), 1.0, 2.0, tmp_path, "clip")


@both
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_full_disk_is_an_error_of_the_user(film: Path, tmp_path: Path, write: Write) -> None:
    for name in ("clip.mp4", "clip.mkv"):
        os.symlink("/dev/full", tmp_path / name)
    with pytest.raises(UserError, match=os.strerror(errno.ENOSPC)):
        write(of_path(film), 1.0, 8.0, tmp_path, "clip")


def test_mpeg4_is_the_last_resort(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_writer, "encoder", lambda: "mpeg4")
    clip = encode_clip(of_path(film), 3.4, 5.0, tmp_path, "clip")
    assert shown(clip.path, 0, 1.6) == shown(film, 3.4, 5.0)


def test_first_frame_is_that_on_display_at_the_start(film: Path) -> None:
    frames = list(frames_between(of_path(film), 3.45, 3.75, count=False))
    assert [round(at, 3) for at, _ in frames] == [0, 0.05, 0.15, 0.25]
    assert [number_in(pixels) for _, pixels in frames] == [34, 35, 36, 37]


def test_first_frame_before_any_other_has_the_time_0(tmp_path: Path) -> None:
    frames = list(frames_between(cut_within_a_group(tmp_path, 0), 0.0, 1.1, count=False))
    assert [round(at, 3) for at, _ in frames] == [0, 0.9, 1.0]
    assert [test_videos.number_in(pixels) for _, pixels in frames] == [20, 21, 22]
