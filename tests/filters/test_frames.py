"""Frames of clips: which are stored, what is measured of them, and clips that are not whole."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from core import videos
from core.errors import BadSampleError
from core.films import FilmFile
from core.stages import FILM
from filters.frames import Frames
from manifests.rules import parse_rules
from manifests.schemas import CLIP_INDEX, bounds, is_bulky
from model import Processor
from model.images import patchify, with_channels_last
from model.processor_config import ProcessorConfig
from model.prune import Pruning, keep_mask
from model.tokenizer import byte_tokenizer
from tests.films import Picture, blank, render, with_decoding_times
from tests.model.clips import REAL, real, turn
from tests.model.clips import write as write_shades


def facts_of(path: Path, start: float, end: float, **settings: Any) -> dict[str, Any]:
    reader = Frames(**settings).load()
    (row,) = reader([reader.prepare(film_of(path), start, end)]).to_pylist()
    return dict(row)


def film_of(path: Path) -> FilmFile:
    return FilmFile(path.name, path=str(path), length=path.stat().st_size)


def pictures_in(facts: dict[str, Any]) -> list[Picture]:
    return [np.asarray(Image.open(io.BytesIO(data))) for data in facts["frames"]]


def shades_in(facts: dict[str, Any]) -> list[int]:
    return [round(float(picture[-8:].mean())) for picture in pictures_in(facts)]


def test_still_has_no_motion_and_keeps_one_token_a_frame(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    facts = facts_of(render(tmp_path / "a.mkv", [noise] * 50), 0, 5)
    assert facts["sampled"] == 10
    assert (facts["motion"], facts["still_share"], facts["black_share"], facts["border_share"]) == (0, 1, 0, 0)
    # 2 x 3 tokens: all of the first frame, then one of each.
    assert facts["kept_share"] == pytest.approx((1 + 9 / 6) / 10)


def test_motion_of_a_moving_square_is_the_mean_difference(tmp_path: Path) -> None:
    def square(number: int) -> Picture:
        picture = blank(100, 84, 280)
        picture[28:56, 28 * number : 28 * number + 28] = 200
        return picture

    facts = facts_of(render(tmp_path / "a.mkv", [square(n) for n in range(8)], rate=2), 0, 4)
    assert facts["sampled"] == 8
    # 100 levels where the square was, and where it is: 2 of 30 tokens.
    assert facts["motion"] == pytest.approx(100 * 2 / 30)
    assert facts["kept_share"] == pytest.approx((1 + 7 * 2 / 30) / 8)
    assert facts["still_share"] == 0


@pytest.mark.parametrize(("values", "share"), [(117, 1), (118, 2)])
def test_token_is_kept_above_a_twentieth_of_a_grey_level(tmp_path: Path, values: int, share: int) -> None:
    """0.05 x 28 x 28 x 3 is 117.6: so many values must rise by one. The first token is kept in any case."""
    after = blank(100, 28, 84)
    after[:, 28:56].reshape(-1)[:] = 100
    changed = np.zeros(28 * 28 * 3, np.uint8)
    changed[:values] = 1
    after[:, 28:56] += changed.reshape(28, 28, 3)
    after[0, 0] = 200  # and this changes the first
    facts = facts_of(render(tmp_path / "a.mkv", [blank(100, 28, 84), after], rate=2), 0, 1)
    assert facts["kept_share"] == pytest.approx((1 + share / 3) / 2)


def test_bars_around_a_picture_are_its_border(tmp_path: Path) -> None:
    def boxed(number: int) -> Picture:
        picture = blank(16, 80, 100)
        picture[10:60, 20:100] = 60 + number
        return picture

    facts = facts_of(render(tmp_path / "a.mkv", [boxed(n) for n in range(20)]), 0, 2)
    assert facts["border_share"] == pytest.approx(1 - 50 * 80 / (80 * 100))
    # A bar that one sampled frame draws into is none.
    drawn = [*map(boxed, range(20))]
    drawn[10][70:80, 40:60] = 90
    assert facts_of(render(tmp_path / "b.mkv", drawn), 0, 2)["border_share"] == pytest.approx(1 - 70 * 80 / 8000)


def test_black_frames_are_counted(tmp_path: Path) -> None:
    black = [*([blank(20)] * 15), *([blank(80)] * 5)]
    assert facts_of(render(tmp_path / "a.mkv", black), 0, 2)["black_share"] == 0.75
    facts = facts_of(tmp_path / "a.mkv", 0, 1)
    assert (facts["black_share"], facts["border_share"]) == (1, 1)


def test_slide_show_is_nearly_still(tmp_path: Path) -> None:
    slides = [blank(60 * slide) for slide in (1, 2, 3, 4) for _ in range(25)]
    facts = facts_of(render(tmp_path / "a.mkv", slides), 0, 10)
    assert facts["still_share"] == pytest.approx(16 / 19)
    assert facts["motion"] == pytest.approx(3 * 60 / 19)


def test_stored_frames_are_spread_from_first_to_last(tmp_path: Path) -> None:
    film = render(tmp_path / "a.mkv", [blank(10 + number) for number in range(200)])
    facts = facts_of(film, 2, 12, stored=5, quality=95)
    assert facts["sampled"] == 20
    assert facts["frame_times"] == [0, 2, 4.5, 7, 9.5]
    assert shades_in(facts) == pytest.approx([30, 50, 75, 100, 125], abs=1)
    assert facts_of(film, 2, 12, stored=1)["frame_times"] == [0]
    assert facts_of(film, 2, 3)["frame_times"] == [0, 0.5], "a clip with fewer stores all"
    facts = facts_of(film, 0, 20, max_frames=4)
    assert facts["sampled"] == 4
    assert facts["frame_times"] == [0, 6.5, 13, 19.5]


@pytest.mark.parametrize(
    ("size", "stored"),
    [((600, 900), (298, 448)), ((900, 600), (448, 298)), ((60, 90), (60, 90)), ((2, 2000), (2, 448))],
    ids=["wide", "high", "small", "strip"],
)
def test_larger_frames_are_scaled_to_the_side(tmp_path: Path, size: tuple[int, int], stored: tuple[int, int]) -> None:
    facts = facts_of(render(tmp_path / "a.mp4", [blank(n, *size) for n in (50, 200)], rate=2), 0, 1)
    assert [picture.shape for picture in pictures_in(facts)] == [(*stored, 3)] * 2
    assert shades_in(facts) == pytest.approx([50, 200], abs=2)
    assert facts["motion"] == pytest.approx(150, abs=3)


@pytest.mark.parametrize("name", REAL)
def test_frames_in_the_middle_are_those_of_the_trainer(name: str) -> None:
    """Pixels, up to the JPEG's loss, and times."""
    start, end = 1.3, 3.4
    facts = facts_of(real(name), start, end, stored=100, side=2000, quality=95)
    frames, times = videos.decode(videos.probe(real(name), fps=2, start=start, end=end), lambda frame: frame)
    assert facts["frame_times"] == pytest.approx([time - start for time in times])
    assert len(frames) == 5
    for ours, theirs in zip(pictures_in(facts), frames, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 2.5
    differences = [np.abs(after.astype(int) - before).mean() for before, after in pairwise(frames)]
    assert facts["motion"] == pytest.approx(np.mean(differences), rel=1e-5)


def test_kept_share_is_that_of_the_processor() -> None:
    """Frames of 448 x 252 pixels are whole tokens: the processor takes them as they are."""
    path = real("bigbuckbunny")
    facts = facts_of(path, 0, 5)
    frames, _ = videos.decode(videos.probe(path, fps=2, end=5), lambda frame: frame, side=448)
    processor = Processor(byte_tokenizer(), ProcessorConfig())
    row = processor([{"role": "user", "content": [{"type": "video", "video": np.stack(frames), "fps": 2}, "?"]}])
    assert row.grid_thw.tolist() == [[10, 18, 32]]
    assert facts["kept_share"] == pytest.approx(row.keep_mask.double().mean().item())
    assert facts["kept_share"] < 1


@pytest.mark.parametrize("drift", [0.02, 0.04, 0.06, 0.2])
def test_kept_share_of_faint_changes_is_diff_fps(tmp_path: Path, drift: float) -> None:
    rng = np.random.default_rng(0)
    picture, pictures = blank(90, 100, 150), []
    for _ in range(8):
        pictures.append(picture)
        picture = picture + (rng.random(picture.shape) < drift * rng.random()).astype(np.uint8)
    facts = facts_of(render(tmp_path / "a.mkv", pictures, rate=2), 0, 4)
    patches = [patchify(with_channels_last(whole[:84, :140].copy()), 14, 2) for whole in pictures]
    mask = keep_mask(torch.cat(patches), (8, 6, 10), 2, Pruning())
    assert facts["kept_share"] == pytest.approx(mask.double().mean().item())
    assert 0.1 < facts["kept_share"] <= 1


def test_turned_film_gives_upright_frames(tmp_path: Path) -> None:
    picture = blank(40, 64, 600)
    picture[:, :300] = 200
    path = turn(render(tmp_path / "a.mp4", [picture] * 20), (0, 1, -1, 0))  # a quarter turn clockwise
    (upright, *_) = pictures_in(facts_of(path, 0, 2))
    assert upright.shape == (448, 48, 3)
    assert upright[:200].mean() == pytest.approx(200, abs=2)
    assert upright[-200:].mean() == pytest.approx(40, abs=2)


def test_frames_of_a_variable_rate_are_those_on_display(tmp_path: Path) -> None:
    stamps = [0, 4, 5, 11, 12, 13, 30, 39]
    path = render(tmp_path / "a.mkv", [blank(20 * n + 20) for n in range(8)], stamps=stamps)
    facts = facts_of(path, 0.5, 4)
    assert facts["frame_times"] == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert shades_in(facts) == pytest.approx([60, 60, 120, 120, 120, 140, 140], abs=2)


@pytest.mark.parametrize("ending", ["avi", "ts"])
def test_frames_of_counted_and_other_films_are_right(tmp_path: Path, ending: str) -> None:
    facts = facts_of(render(tmp_path / f"a.{ending}", [blank(40 + 3 * n) for n in range(60)]), 2, 5)
    assert shades_in(facts) == pytest.approx([100 + 15 * n for n in range(6)], abs=2)


def test_film_whose_times_go_back_is_read_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is found out on the way: what was measured until then does not count."""
    path = with_decoding_times(render(tmp_path / "a.mp4", [blank(40 + 3 * n) for n in range(60)]), tmp_path / "b.mp4")
    facts = facts_of(path, 0, 5, stored=10)
    assert "carry no usable times" in caplog.text
    frames, _ = videos.decode(videos.probe(path, fps=2, end=5), lambda frame: frame)
    assert shades_in(facts) == pytest.approx([frame.mean() for frame in frames], abs=2)
    differences = [np.abs(after.astype(int) - before).mean() for before, after in pairwise(frames)]
    assert (facts["sampled"], facts["motion"]) == (10, pytest.approx(np.mean(differences)))


def test_last_frame_is_stored_where_the_film_lacks_the_planned(tmp_path: Path) -> None:
    """Half a second is missing at the end of the film, as where containers round durations."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 32, 48, 3)).astype(np.uint8)
    whole = render(tmp_path / "whole.mkv", noise)

    def cut(share: float) -> Path:
        path = tmp_path / "cut.mkv"
        path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
        return path

    assert facts_of(whole, 0, 10, stored=5)["frame_times"] == [0, 2, 4.5, 7, 9.5]
    facts = facts_of(cut(0.94), 0, 10, stored=5)
    assert (facts["sampled"], facts["frame_times"]) == (19, [0, 2, 4.5, 7, 9])
    with pytest.raises(BadSampleError, match=r"cut\.mkv: breaks off: at 8\.0 s, within the clip from 6\.0 s to 8\.5 s"):
        facts_of(cut(0.8), 6, 8.5, fps=10)


def test_clip_of_one_frame_has_no_motion_to_tell_of(tmp_path: Path) -> None:
    facts = facts_of(render(tmp_path / "a.mkv", [blank(90)] * 30), 1, 1.3)
    assert (facts["motion"], facts["still_share"]) == (None, None)
    assert (facts["sampled"], facts["kept_share"], facts["frame_times"]) == (1, 1, [0])


def test_table_has_the_declared_columns_and_ranges(tmp_path: Path) -> None:
    reader = Frames().load()
    path = render(tmp_path / "a.mkv", [*([blank(0)] * 5), *([blank(255)] * 5)])
    table = reader([reader.prepare(film_of(path), 0, end) for end in (0.4, 1)])
    assert table.schema.equals(Frames.writes, check_metadata=True)
    assert reader([]).schema.equals(Frames.writes)
    assert [field.name for field in Frames.writes if is_bulky(field)] == ["frames", "frame_times"]
    for field in Frames.writes:
        if not pa.types.is_list(field.type):
            low, high = bounds(field)
            assert all(low <= value <= high for value in table[field.name].drop_null().to_pylist())
    assert table["motion"].to_pylist() == [None, 255]


def test_columns_and_rules_fit_a_run_of_clips() -> None:
    assert set(Frames.writes.names) & set(CLIP_INDEX.names) == set()
    assert set(Frames().reads) - {FILM} <= set(CLIP_INDEX.names)
    keep = {"min": 2, "max_still_share": 0.5, "max_black_share": 0.1, "max_border_share": 0.3, "min_kept_share": 0.1}
    assert parse_rules(keep, Frames().writes, "keep", {})[0].name == "min_motion"


def test_film_inside_of_a_file_gives_the_same_facts(tmp_path: Path) -> None:
    path = render(tmp_path / "a.mkv", [blank(3 * n) for n in range(80)])
    data, reader = path.read_bytes(), Frames().load()
    inside = FilmFile("films.tar: a.mkv", open=lambda: io.BytesIO(data), length=len(data))
    assert reader.prepare(inside, 4, 7) == reader.prepare(film_of(path), 4, 7)


def test_clip_outside_of_its_film_is_an_error(tmp_path: Path) -> None:
    path = render(tmp_path / "a.mkv", [blank(90)] * 30)
    for start, end, problem in [
        (5, 6, r"behind the end: start 5 s, the film ends at 3.0 s"),
        (2, 5, r"behind the end: the clip ends at 5.0 s, the film at 3.0 s; index the films again"),
        (2, 2, r"a\.mkv: empty clip: `trim` and `snap` leave nothing of its scene$"),
        (float("nan"), 2, r"give numbers"),
        (1, None, r"a clip without an end"),
        (None, 1, r"give numbers"),
    ]:
        with pytest.raises(BadSampleError, match=problem) as error:
            Frames().load().prepare(film_of(path), start, end)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def test_film_that_changed_since_the_index_is_an_error(tmp_path: Path) -> None:
    path = render(tmp_path / "a.mkv", [blank(90)] * 30)
    film, reader = film_of(path), Frames().load()
    reader.prepare(film, 0, 1)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(BadSampleError, match=r"index the pool again"):
        reader.prepare(film, 1, 2)


def test_film_that_breaks_off_in_the_clip_is_an_error(tmp_path: Path) -> None:
    """Its header, at the start, says 60 seconds; a third of its bytes are there."""
    path = write_shades(tmp_path / "whole.mkv", [n / 2 for n in range(120)])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    reader = Frames().load()
    assert len(reader.prepare(film_of(cut), 5, 10).frames) == 8
    for start, end in [(10, 30), (15, 22), (30, 40), (58, 58.4)]:
        with pytest.raises(BadSampleError, match=r"cut\.mkv: (breaks off|no frame)"):
            reader.prepare(film_of(cut), start, end)
