from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadSampleError
from core.records import Choices
from model.training.data.importers.options_text import choice_turns, choices_from, choices_of, options_of
from model.training.data.importers.turns import video

TEXTS = st.text("abc (),.:'", min_size=1).map(str.strip)


@given(st.lists(TEXTS, min_size=1, max_size=26), st.data())
def test_written_options_are_read_back(texts: list[str], data: st.DataObject) -> None:
    answer = data.draw(st.integers(0, len(texts) - 1))
    choices = choices_from(texts, answer)
    asked, answered = choice_turns(video("a.mp4"), "Who?", choices)
    assert choices_of(asked.text, answered.text) == Choices(options=tuple(texts), answer_index=answer)


@pytest.mark.parametrize(
    "question", ["Who?", "Options: none", "Options:\n(B) a\n(A) b", "Options:\n(A) a\n(C) b", "Options:\n[A] a"]
)
def test_other_lists_are_no_options(question: str) -> None:
    assert options_of(question) == ()


def test_question_without_a_known_answer_is_refused() -> None:
    with pytest.raises(BadSampleError, match="no right option"):
        choice_turns(video("a.mp4"), "Who?", choices_from(["a"], None))
