from __future__ import annotations

import pytest

from pipeline.serving.page.moments import clock, moments_of


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("At 3.0 s a man sits, from 7.5-9.0 s he walks.", [3.0, 7.5, 9.0]),
        ("He comes at 0:12 and leaves at 1:05.", [12.0, 65.0]),
        ("It starts at 1:00:05.", []),  # behind the end
        ("Time 4.0s: it falls; again at 4 seconds", [4.0]),
        ("In the 1990s 12 dogs at 3:30 pm, 2024-05-12", []),
        ("", []),
    ],
)
def test_times_of_an_answer_within_the_film(text: str, times: list[float]) -> None:
    assert moments_of(text, 100.0) == times


def test_times_are_written_as_people_read_them() -> None:
    assert [clock(seconds) for seconds in (7.5, 65, 3665)] == ["7.5 s", "1:05", "1:01:05"]
