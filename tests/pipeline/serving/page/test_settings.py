from __future__ import annotations

from typing import Any

import pytest

from core.errors import UserError
from model import Processor
from pipeline.serving.page.settings import Settings, read_settings


def test_empty_fields_are_the_way_of_the_checkpoint() -> None:
    settings = read_settings(900, fps=None, max_frames=None, keep="", sampling="", system="", max_new_tokens=512)
    assert settings == Settings()
    assert settings.clip == {}
    processor = Processor.tiny()
    assert settings.of(processor).config == processor.config


def test_settings_reach_films_and_pruning() -> None:
    settings = read_settings(900, fps=2, max_frames=8.0, start=1, end=3.5, keep="5", sampling="original")
    assert settings.clip == {"fps": 2, "max_frames": 8, "start": 1, "end": 3.5}
    config = settings.of(Processor.tiny()).config
    assert config.pruning is not None
    assert (config.pruning.threshold, config.pruning.unit, config.sampling) == (5.0, "grey", "original")
    assert read_settings(900, keep="all").of(Processor.tiny()).config.pruning is None


def test_answer_is_no_longer_than_the_server_allows() -> None:
    assert read_settings(100, max_new_tokens=512).max_new_tokens == 100


def test_temperature_next_to_zero_is_zero() -> None:
    assert read_settings(900, temperature=1e-9).temperature == 0


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"fps": 0}, "Frames per second: "),
        ({"fps": float("nan")}, "Frames per second: "),
        ({"max_frames": 2.5}, "Maximum of frames: "),
        ({"start": 3, "end": 3}, "End of the film: give one behind the start, 3 s"),
        ({"keep": "much"}, "Pruning threshold: give grey levels, 0 to 255, or all"),
        ({"keep": 256}, "Pruning threshold: give grey levels, 0 to 255, or all"),
        ({"keep": "nan"}, "Pruning threshold: give grey levels, 0 to 255, or all"),
        ({"top_p": 0}, "Top p: "),
        ({"max_new_tokens": 0}, "Longest answer: "),
        ({"temperature": "hot"}, "Temperature: "),
        ({"sampling": "none"}, "Frame of a sampled time: "),
    ],
)
def test_wrong_setting_is_refused_in_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_settings(900, **given)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
