from __future__ import annotations

import pytest

from core.errors import BadSampleError
from model.training.data.grounding import events_of
from model.training.data.importers.dense_captions import dense_turns
from model.training.data.importers.turns import video


def test_events_can_be_read_back_from_the_answer() -> None:
    answer = dense_turns(video("a.mp4"), [(0.0, 2.5, "A man\nsits."), (2.5, 7.0, "He stands.")])[1]
    assert answer.text == "0.0-2.5 s: A man sits.\n2.5-7.0 s: He stands."
    assert events_of(answer.text) == [((0.0, 2.5), "A man sits"), ((2.5, 7.0), "He stands")]
    assert [(span.media, span.start, span.end) for span in answer.spans] == [("v0", 0.0, 2.5), ("v0", 2.5, 7.0)]


@pytest.mark.parametrize(
    ("events", "reason"),
    [([], "no events"), ([(1.0, 2.0, " ")], "empty caption: at 1 s"), ([(3.0, 2.0, "A man.")], "span 3.0-2.0 s")],
)
def test_events_without_words_or_reversed_are_refused(events: list[tuple[float, float, str]], reason: str) -> None:
    with pytest.raises(BadSampleError, match=reason):
        dense_turns(video("a.mp4"), events)
