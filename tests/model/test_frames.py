from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch

from core import sampled_frames
from core.videos import Video, probe
from model import frames
from model.frames import decode
from tests.model.clips import real, turn, without_frames, write

TENTHS = [k / 10 for k in range(100)]


def _shown(video: Video, size: tuple[int, int] = (64, 96)) -> list[int]:
    """Numbers of the frames that were taken, by their shade."""
    taken, times = decode(video, size)
    assert taken.dtype == torch.uint8
    assert tuple(taken.shape) == (len(times), 3, *size)
    return [round((frame[:, 40:, 40:].float().mean().item() + 0.5) / 2) for frame in taken]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s at 10 frames per second, a key frame every second."""
    return write(tmp_path_factory.mktemp("clips") / "clip.mp4", TENTHS)


def test_one_frame_per_second_is_the_displayed_frame(clip: Path) -> None:
    video = probe(clip)
    assert video.times == tuple(float(k) for k in range(10))
    assert _shown(video) == list(range(0, 100, 10))


def test_frames_have_the_memory_format_channels_last(clip: Path) -> None:
    taken, _ = decode(probe(clip), (64, 96))
    assert taken.stride() == (64 * 96 * 3, 1, 96 * 3, 3), "torch resizes to it in half of the time"


def test_frames_follow_start_end_and_rate(clip: Path) -> None:
    assert _shown(probe(clip, fps=2, start=4.05, end=6)) == [40, 45, 50, 55]
    assert probe(clip, fps=2, start=4.0, end=5.5).times == (4.0, 4.5, 5.0)


def test_more_than_max_frames_are_thinned_evenly(clip: Path) -> None:
    assert probe(clip, fps=10, max_frames=4).times == pytest.approx((0, 3.3, 6.6, 9.9))


def test_rate_above_that_of_the_clip_repeats_frames(clip: Path) -> None:
    assert _shown(probe(clip, fps=20, end=0.2)) == [0, 0, 1, 1]


def test_variable_frame_rate_follows_time_stamps(tmp_path: Path) -> None:
    stamps = [0, 0.1, 0.2, 2.5, 2.6, 3.0, 5.9, 6.0]
    video = probe(write(tmp_path / "vfr.mp4", stamps))
    assert _shown(video) == [0, 2, 2, 5, 5, 5, 7]


def test_time_counts_from_the_first_stamp(tmp_path: Path) -> None:
    path = write(tmp_path / "late.mkv", [5 + t for t in TENTHS[:30]])
    assert _shown(probe(path)) == [0, 10, 20]


@pytest.mark.parametrize("gop", [10, 1000])
def test_seeking_gives_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gop: int) -> None:
    path = write(tmp_path / "long.mp4", [k / 4 for k in range(120)], gop=gop)
    video = probe(path, fps=0.2)
    jumped = _shown(video)
    monkeypatch.setattr(sampled_frames, "SEEK_GAP", 1e9)
    assert jumped == _shown(video) == [0, 20, 40, 60, 80, 100]


def test_seeking_decodes_fewer_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "long.mp4", [k / 4 for k in range(120)], gop=4)
    video = probe(path, start=25, end=26)
    seen = []
    real_timed = sampled_frames._timed

    def spy(*arguments: object) -> object:
        for at, frame in real_timed(*arguments):  # type: ignore[arg-type]
            seen.append(at)
            yield at, frame

    monkeypatch.setattr(sampled_frames, "_timed", spy)
    decode(video, (28, 28))
    assert min(seen) > 20


@pytest.mark.parametrize(
    ("matrix", "quarters", "corner"),
    [((0, 1, -1, 0), 3, "top right"), ((0, -1, 1, 0), 1, "bottom left"), ((-1, 0, 0, -1), 2, "bottom right")],
)
def test_rotated_video_is_read_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], quarters: int, corner: str
) -> None:
    """The white corner, top left as coded, is where a player shows it: (0, 1, -1, 0) turns clockwise."""
    video = probe(turn(write(tmp_path / "phone.mp4", TENTHS[:10]), matrix))
    assert video.quarters == quarters
    upright = (64, 96) if quarters == 2 else (96, 64)
    assert (video.height, video.width) == upright
    taken, _ = decode(video, upright)
    bright = taken[0].float().mean(0) > 200
    rows, columns = bright.nonzero().float().mean(0).tolist()
    vertical = "top" if rows < upright[0] / 2 else "bottom"
    assert f"{vertical} {'left' if columns < upright[1] / 2 else 'right'}" == corner


@pytest.mark.parametrize("name", ["bigbuckbunny", "carphone"])
def test_frames_of_real_clips_equal_a_plain_loop(name: str) -> None:
    video = probe(real(name), fps=2)
    taken, times = decode(video, (video.height, video.width))
    with av.open(str(real(name))) as container:
        every = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    for frame, time in zip(taken, times, strict=True):
        expected = [pixels for at, pixels in every if at <= time + 1e-6][-1]
        assert torch.equal(frame.permute(1, 2, 0), torch.from_numpy(expected))


def test_only_resized_frames_are_kept(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = []
    plain = frames.resize
    monkeypatch.setattr(frames, "resize", lambda frame, size: arguments.append(len(frame)) or plain(frame, size))
    decode(probe(clip, fps=10), (14, 14))
    assert arguments == [1] * 100


def test_truncated_file_is_refused_with_its_last_time(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes()[:3000])  # its index is at its end
    with pytest.raises(ValueError, match="cannot be read as a video"):
        probe(path)
    whole = write(tmp_path / "whole.mkv", TENTHS)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"breaks off: at .* s, before 9.0 s; give a whole file, or end="):
        decode(probe(cut), (28, 28))


@pytest.mark.parametrize(
    ("options", "advice"),
    [({"start": 30}, "behind the end"), ({"fps": 0}, "fps above 0"), ({"start": 3, "end": 2}, "0 <= start < end")],
)
def test_impossible_ranges_are_refused(clip: Path, options: dict[str, float], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        probe(clip, **options)  # type: ignore[arg-type]


def test_file_without_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        probe(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="cannot be read"):
        probe(tmp_path / "text.mp4")


def test_video_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a video without frames"):
        probe(without_frames(tmp_path / "empty.mkv"))
