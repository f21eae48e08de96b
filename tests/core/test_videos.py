"""Which frame is shown when, in files that tell it and in files that do not."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from core import frame_counting
from core.errors import BadSampleError
from core.videos import Frame, decode, probe

SIDES = 128, 192


def picture(number: int) -> Frame:
    """White, with an object whose left edge is at 10 + 4 * number."""
    pixels = np.full((*SIDES, 3), 255, np.uint8)
    pixels[20:60, 10 + 4 * number : 60 + 4 * number] = (200, 30, 30)
    return pixels


def number_in(frame: Frame) -> int:
    return round((int((frame[40, :, 1] < 128).nonzero()[0][0]) - 10) / 4)


def film(
    path: Path,
    codec: str = "libx264",
    b_frames: int = 3,
    container: str | None = None,
    stamps: Sequence[int] = range(30),
    **options: str,
) -> Path:
    """The n-th picture at stamps[n], 10 a second."""
    if codec == "libx264":
        options = {"bf": str(b_frames), "qp": "0", **options}
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIDES, "yuv420p"
        stream.codec_context.max_b_frames = b_frames
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def shown(path: Path, fps: float = 10.0, **options: float) -> list[int]:
    """The numbers of the pictures that are shown at 0, 1 / fps, 2 / fps, … seconds."""
    taken, times = decode(probe(path, fps=fps, **options), number_in)  # type: ignore[arg-type]
    assert len(taken) == len(times)
    return taken


@pytest.mark.parametrize(
    ("name", "codec", "b_frames", "options"),
    [
        ("h264_b.avi", "libx264", 3, {}),
        ("h264_pyramid.avi", "libx264", 7, {"x264-params": "b-adapt=0:b-pyramid=normal"}),
        ("h264_open.avi", "libx264", 3, {"x264-params": "open-gop=1:keyint=10"}),
        ("h264.avi", "libx264", 0, {}),
        ("mpeg4_b.avi", "mpeg4", 2, {}),
        ("mpeg4.avi", "mpeg4", 0, {}),
        ("mjpeg.avi", "mjpeg", 0, {}),
        ("h264_b.mkv", "libx264", 3, {}),
        ("h264_b.mp4", "libx264", 3, {}),
        ("h264_b.ts", "libx264", 3, {}),
        ("h264_b.flv", "libx264", 3, {}),
        ("raw.h264", "libx264", 3, {}),
        ("raw.m4v", "mpeg4", 2, {}),
        ("raw.hevc", "libx265", 3, {"x265-params": "log-level=none:bframes=3"}),
    ],
)
def test_every_frame_is_read_once_and_in_order(
    tmp_path: Path, name: str, codec: str, b_frames: int, options: dict[str, str]
) -> None:
    if codec == "mjpeg":
        options = {"color_range": "pc", "strict": "unofficial"}
    path = film(tmp_path / name, codec, b_frames, **options)
    assert shown(path) == list(range(30))
    assert shown(path, fps=2) == [0, 5, 10, 15, 20, 25]
    assert shown(path, start=1.05, end=1.35) == [10, 11, 12]


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_raw_stream_of_mpeg_starts_at_its_first_frame(tmp_path: Path, codec: str) -> None:
    with av.open(str(tmp_path / "a.m2v"), "w", format=codec) as output:
        stream = output.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIDES, "yuv420p"
        stream.codec_context.max_b_frames = 2
        for number in range(30):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        output.mux(stream.encode())
    assert shown(tmp_path / "a.m2v", fps=25) == list(range(30))


def test_dropped_frames_of_an_avi_keep_the_times(tmp_path: Path) -> None:
    """AVI has an empty chunk where a frame is dropped: pictures 3 and 4 are at places 5 and 6."""
    path = film(tmp_path / "dropped.avi", "mpeg4", 0, stamps=[0, 1, 2, 5, 6, 9])
    assert shown(path) == [0, 1, 2, 2, 2, 3, 4, 4, 4, 5]


def test_dropped_frames_of_an_avi_with_b_frames_keep_the_times(tmp_path: Path) -> None:
    stamps = [n for n in range(30) if n not in (12, 13, 14)]
    path = film(tmp_path / "dropped.avi", stamps=stamps)
    assert shown(path)[:28] == [max(k for k, stamp in enumerate(stamps) if stamp <= t) for t in range(28)]


@pytest.mark.parametrize("ending", ["ts", "mpg"])
def test_concatenated_films_are_read_to_the_end(tmp_path: Path, ending: str) -> None:
    """Their times begin anew in the middle."""
    codec = "libx264" if ending == "ts" else "mpeg4"
    one = film(tmp_path / f"one.{ending}", codec, 2).read_bytes()
    (tmp_path / f"both.{ending}").write_bytes(one + one)
    assert shown(tmp_path / f"both.{ending}", fps=2)[:12] == [0, 5, 10, 15, 20, 25] * 2


Disposition = av.stream.Disposition
COVERS = {
    "attached to an mp4": ("cover.mp4", Disposition.attached_pic, Disposition.default),
    "attached to a mov": ("cover.mov", Disposition.attached_pic, Disposition.default),
    "default track of an mp4": ("cover.mp4", Disposition.default, Disposition(0)),
    "track of a Matroska file": ("cover.mkv", Disposition.attached_pic, Disposition(0)),
    "default track of a Matroska file": ("cover.mkv", Disposition.default, Disposition(0)),
    "still of a Matroska file": ("cover.mkv", Disposition.default | Disposition.still_image, Disposition(0)),
}


def with_cover(path: Path, cover_is: Disposition, film_is: Disposition | None, first: bool = True) -> Path:
    """A picture, and a film of 30 frames or (None) a second of sound."""
    with av.open(str(path), "w", format="mp4" if path.suffix == ".m4a" else None) as output:

        def add_cover() -> Any:
            cover = output.add_stream("mjpeg", rate=1)
            cover.width = cover.height = 640
            cover.pix_fmt, cover.disposition = "yuvj420p", cover_is
            return cover

        cover = add_cover() if first else None
        if film_is is None:
            stream: Any = output.add_stream("aac", rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 8000
            frames: list[Any] = [sound]
        else:
            stream = output.add_stream("libx264", rate=10, options={"qp": "0", "bf": "0"})
            stream.height, stream.width, stream.pix_fmt = *SIDES, "yuv420p"
            stream.disposition = film_is
            frames = [av.VideoFrame.from_ndarray(picture(number), format="rgb24") for number in range(30)]
        cover = cover or add_cover()
        output.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((640, 640, 3), np.uint8), format="rgb24")))
        output.mux(cover.encode())
        for frame in frames:
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", COVERS)
def test_cover_image_is_not_read_as_the_film(tmp_path: Path, kind: str, first: bool) -> None:
    name, cover_is, film_is = COVERS[kind]
    path = with_cover(tmp_path / name, cover_is, film_is, first)
    assert shown(path, fps=2) == [0, 5, 10, 15, 20, 25]
    assert (probe(path).height, probe(path).width) == SIDES


def test_sound_with_a_cover_is_not_a_film(tmp_path: Path) -> None:
    path = with_cover(tmp_path / "song.m4a", Disposition.attached_pic, None)
    with pytest.raises(BadSampleError, match=r"song\.m4a: no video stream, only a cover: give a video file$"):
        probe(path)


def test_variable_frame_times_are_those_of_the_file(tmp_path: Path) -> None:
    path = film(tmp_path / "variable.mkv", stamps=[0, 1, 2, 5, 6, 9])
    assert shown(path) == [0, 1, 2, 2, 2, 3, 4, 4, 4, 5]


def test_stream_cut_in_the_middle_keeps_its_times(tmp_path: Path) -> None:
    """Its first packets lead to a key frame that is not there; what can be decoded keeps its distance in time."""
    whole = film(tmp_path / "whole.ts", **{"x264-params": "keyint=10:min-keyint=10:scenecut=0"}).read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole[len(whole) // 188 // 2 * 188 :])
    seen = shown(cut)
    moving = [number for number, before in zip(seen[1:], seen, strict=False) if number != before]
    assert seen[-1] == 29
    assert moving == list(range(moving[0], 30))


def test_decreasing_times_are_replaced_by_counts_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The guesses of FFmpeg for an AVI, taken for times of the file."""
    monkeypatch.setattr(frame_counting, "WITHOUT_TIMES", frozenset())
    path = film(tmp_path / "guessed.avi", qp="20", **{"x264-params": "b-adapt=0:b-pyramid=normal"})
    with av.open(str(path)) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert times != sorted(times)
    frame_counting._tell_of_counting.cache_clear()
    with caplog.at_level(logging.WARNING, "vl3syn.videos"):
        assert shown(path)[:30] == list(range(30))
        shown(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"frames of {path} carry no usable times: they are counted, in decoding order, at the frame rate"
    ]


DELAYS = [100, 500, 250, 1000, 70]
"""Milliseconds for which each picture of an animation is shown."""


@pytest.mark.parametrize("ending", ["gif", "png"])
def test_animation_is_shown_at_its_own_times(tmp_path: Path, ending: str) -> None:
    """The reference takes 25 frames per second for any GIF."""
    pictures = [Image.fromarray(picture(number)) for number in range(5)]
    path = tmp_path / f"a.{ending}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=DELAYS)
    ends = np.cumsum(DELAYS)
    expected = [int(np.searchsorted(ends, 100 * k, side="right")) for k in range(20)]
    assert shown(path) == expected == [0, *[1] * 5, *[2] * 3, *[3] * 10, 4]


@pytest.mark.parametrize("kind", ["gif", "png", "mkv"])
def test_transparent_pixels_of_a_film_are_white(tmp_path: Path, kind: str) -> None:
    """As those of images; whatever colour lies under them."""
    pixels = np.full((32, 48, 4), (9, 99, 200, 255), np.uint8)
    pixels[:16, :, 3] = 0
    path = tmp_path / f"a.{kind}"
    if kind == "mkv":
        with av.open(str(path), "w") as output:
            stream = output.add_stream("ffv1", rate=10)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "bgra"
            for _ in range(3):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="bgra")))
            output.mux(stream.encode())
    else:
        images = [Image.fromarray(np.roll(pixels, shift, 1)) for shift in range(3)]
        images[0].save(path, save_all=True, append_images=images[1:], duration=100, disposal=2 if kind == "gif" else 1)
    (frame,), _ = decode(probe(path, max_frames=1), np.copy)
    assert (frame[:16] == 255).all()
    assert (frame[16:] == (9, 99, 200)).all()


def test_avi_and_matroska_of_one_film_give_the_same_eval(
    tmp_path: Path, vl3syn: Callable[..., CompletedProcess[str]]
) -> None:
    from model import Processor, VideoLLaMA3
    from model.config import preset

    VideoLLaMA3(preset("tiny")).save_pretrained(tmp_path / "model")
    Processor.tiny().save_pretrained(tmp_path / "model")
    losses = []
    for ending in ("mkv", "avi"):
        film(tmp_path / f"film.{ending}")
        turns = [{"from": "human", "value": "<video>\nWhat moves?"}, {"from": "gpt", "value": "A red square."}]
        line = {"video": [f"film.{ending}"], "conversations": turns, "fps": 5}
        (tmp_path / f"{ending}.jsonl").write_text(json.dumps(line))
        done = vl3syn(
            "eval", tmp_path / "model", "--data", tmp_path / f"{ending}.jsonl", "--max-new-tokens", 0, "--json"
        )
        assert done.returncode == 0, done.stderr
        losses.append(json.loads(done.stdout)["loss"]["mean"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)
