from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadSampleError
from model.training.data.importers.clocks import clock_seconds


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59_999))
def test_clock_is_read_to_the_millisecond(hours: int, minutes: int, milliseconds: int) -> None:
    text = f"{hours}:{minutes:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
    assert clock_seconds(text) == pytest.approx(hours * 3600 + minutes * 60 + milliseconds / 1000, abs=1e-6)


def test_minutes_may_stand_without_hours() -> None:
    assert clock_seconds("75:03,5") == 4503.5


@pytest.mark.parametrize("text", ["", "12", "0:00:61", "1:75:00", "-0:01", "0:00:nan", "0:0:1:2", None, 12.0])
def test_what_is_no_clock_is_refused(text: object) -> None:
    with pytest.raises(BadSampleError, match="no clock time"):
        clock_seconds(text)
