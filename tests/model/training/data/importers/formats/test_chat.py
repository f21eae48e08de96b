"""Text alone, in the forms that it is published in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import import_entries

MESSAGES = [{"role": "user", "content": "What does <image> do?"}, {"role": "assistant", "content": "It shows."}]
SAME = [
    {"messages": MESSAGES},
    {
        "id": 3,
        "conversations": [{"from": "human", "value": MESSAGES[0]["content"]}, {"from": "gpt", "value": "It shows."}],
    },
    {"messages": [{"role": "user", "content": [{"type": "text", "text": MESSAGES[0]["content"]}]}, MESSAGES[1]]},
    {"data": [MESSAGES[0]["content"], "It shows."]},
    {"instruction": "What does <image>", "input": "do?", "output": "It shows."},
    {"instruction": "What does <image> do?", "input": "", "output": "It shows."},
    {"problem": MESSAGES[0]["content"], "solution": "It shows.", "source": "olympiads"},
    {"problem": "other words", "solution": "other words", "messages": MESSAGES},  # NuminaMath has both
    {"prompt": MESSAGES[0]["content"], "response": "It shows."},
]


@pytest.mark.parametrize("entry", SAME)
def test_all_forms_are_the_same_conversation(tmp_path: Path, entry: dict[str, Any]) -> None:
    (record,) = import_entries(tmp_path, "chat", [entry]).records
    said = [turn.text.replace("\n", " ") for turn in record.turns]
    assert said == ["What does <image> do?", "It shows."]
    assert [turn.role for turn in record.turns] == ["user", "assistant"]
    assert record.media == ()


def test_messages_come_back_with_weights_and_system(tmp_path: Path) -> None:
    silent = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "No.", "weight": 0}]
    messages = [{"role": "system", "content": "Short."}, *MESSAGES, *silent]
    assert import_entries(tmp_path, "chat", [{"messages": messages}]).rendered("openai") == [{"messages": messages}]


def test_developer_and_system_beside_are_system(tmp_path: Path) -> None:
    entries = [
        {"messages": [{"role": "developer", "content": "Be brief."}, *MESSAGES]},
        {"system": "Be brief.", **SAME[-1]},
    ]
    records = import_entries(tmp_path, "chat", entries).records
    assert [record.turns[0].text for record in records] == ["Be brief."] * 2
    assert [record.turns[0].role for record in records] == ["system"] * 2


def test_key_that_names_a_medium_is_noted(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "chat", [SAME[-1] | {"video_id": "a1"}, SAME[-1] | {"video_id": None}])
    assert len(imported.records) == 2
    assert imported.report.notes.counted["`video_id` names a medium, which is not in a chat of text"].count == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"messages": MESSAGES, "image": "a.jpg"}, "media in a chat of text"),
        ({"messages": MESSAGES, "image_path": "a.jpg"}, "`image_path`: "),
        ({"messages": MESSAGES, "conversations": [1]}, "two conversations: messages and conversations"),
        ({"messages": [*MESSAGES, {"role": "tool", "content": "7"}]}, "unknown speaker: 'tool'"),
        ({"messages": [MESSAGES[0], MESSAGES[1] | {"weight": 0.5}]}, "a weight that is neither 0 nor 1"),
        ({"messages": [MESSAGES[0], MESSAGES[1] | {"tool_calls": [{"name": "f"}]}]}, "`tool_calls`: calls of tools"),
        ({"messages": [MESSAGES[0], {"role": "assistant", "content": [{"type": "image_url"}]}]}, "no text: "),
        ({"messages": [MESSAGES[0], {"role": "assistant", "content": None}]}, "no text: None"),
        ({"messages": [MESSAGES[1], MESSAGES[0]]}, "roles out of order"),
        ({"instruction": "Say it.", "output": ""}, "empty answer: turn 1"),
        ({"instruction": "Say it.", "output": "a", "history": [["q"]]}, "history: "),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "`rejected`: "),
        ({"text": "plain"}, "no conversation: its keys are text"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "chat", [SAME[0], broken])
    assert imported.rendered("openai") == [{"messages": MESSAGES}]
    assert imported.reasons[0].startswith(reason)
