"""Which finish reasons make a whole caption, a cut one, or an error that is worth another try."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioners.engines.base import Answer
from captioners.engines.finish import _BROKEN_OFF, _CUT, _WHOLE, finished
from captioners.engines.lmdeploy import answer_of

WHOLE: tuple[object, ...] = (
    "stop",
    "eos",
    "eos_token",
    "stop_sequence",
    "end_turn",
    "STOP",
    "Complete",
    " stop ",
    "FinishReason.STOP",
    {"type": "stop"},
)
CUT: tuple[object, ...] = (
    "length",
    "max_tokens",
    "model_length",
    "content_filter",
    "content-filter",
    "tool_calls",
    "function_call",
    "MAX_TOKENS",
)
CUT += ({"type": "length", "length": 10},)
UNKNOWN = (None, "", "something_new", 7, {"type": "new"}, {}, ["stop"])
BROKEN_OFF = ("abort", "error", "cancelled", "insufficient_system_resource", "timeout")


@pytest.mark.parametrize("reason", WHOLE)
def test_finished_with_reason_stop_is_a_whole_answer(reason: object) -> None:
    assert finished("A red square.", reason, "server", 5, 3) == Answer("A red square.", False, 5, 3)


@pytest.mark.parametrize("reason", [*CUT, *UNKNOWN])
def test_finished_with_reason_length_is_a_cut_answer(reason: object) -> None:
    assert finished("A red square lies on", reason, "server", 5, 3) == Answer("A red square lies on", True, 5, 3)


@pytest.mark.parametrize("reason", BROKEN_OFF)
def test_finished_with_another_reason_is_an_error_to_retry(reason: str) -> None:
    answer = finished("A red square lies on", reason, "server", 5, 3)
    assert (answer.text, answer.retry) == ("", True)
    assert answer.error == f"server: the answer broke off (finish_reason {reason})"


@pytest.mark.parametrize("reason", UNKNOWN)
def test_empty_answer_without_reason_is_retried(reason: object) -> None:
    assert all(finished(text, reason, "server").retry for text in ("", " \n", "\0"))


@pytest.mark.parametrize("reason", [*WHOLE, *CUT])
def test_empty_answer_with_a_reason_is_not_retried(reason: object) -> None:
    assert not finished("", reason, "server").retry


def test_docs_list_the_same_finish_reasons() -> None:
    documented = Path(__file__).parents[3].joinpath("docs", "captions.md").read_text()
    table = documented.partition("| `finish_reason` |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    for names, meaning in rows:
        for reason in re.findall(r"`(\w+)`", names):
            answer = finished("A red square", reason, "server")
            assert ("broke off" in meaning, "is cut" in meaning) == (bool(answer.error), answer.cut)
    assert sum(len(re.findall(r"`(\w+)`", names)) for names, _ in rows) == len(_WHOLE | _CUT | _BROKEN_OFF)


def test_lmdeploy_finish_reasons_follow_the_same_table() -> None:
    def response(text: str, reason: str | None, error: str | None = None) -> SimpleNamespace:
        tokens = {"input_token_len": 100, "generate_token_len": 3}
        return SimpleNamespace(text=text, finish_reason=reason, error_message=error, **tokens)

    responses = [
        response("A red square.", "stop"),
        response("A red", "length"),
        response("A red", None),
        response("A red", "abort"),
        response("internal error happened", "error"),
        response("", "error", "out of memory"),
        response("", None),
    ]
    answers = [answer_of(response) for response in responses]
    assert [(a.text, a.cut) for a in answers[:3]] == [("A red square.", False), ("A red", True), ("A red", True)]
    assert [a.error for a in answers[3:]] == [
        "lmdeploy: the answer broke off (finish_reason abort) A red",
        "lmdeploy: the answer broke off (finish_reason error) internal error happened",
        "lmdeploy: the answer broke off (finish_reason error) out of memory",
        "lmdeploy: the answer broke off (finish_reason null)",
    ]
    assert all(answer.retry for answer in answers[3:])
