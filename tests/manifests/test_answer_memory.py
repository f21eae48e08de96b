"""The memory of answers: what other processes find in it, and when it forgets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manifests.answer_memory import AnswerMemory, delete_answers, has_answers
from manifests.storage import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.at(tmp_path / "table")


def the_file(folder: Folder) -> Path:
    (file,) = Path(folder.path).iterdir()
    return file


def test_another_process_finds_each_answer_by_row_and_key(folder: Folder) -> None:
    memory, other = AnswerMemory(folder), AnswerMemory(folder)
    assert other.get(3, "a") is None
    memory.put(1, "a", "line one\nline two é")
    memory.put(-2, "a", "other row")
    assert [other.get(1, "a"), other.get(1, "b"), other.get(-2, "a")] == ["line one\nline two é", None, "other row"]


def test_answers_of_others_are_read_once_per_row(folder: Folder) -> None:
    memory, other = AnswerMemory(folder), AnswerMemory(folder)
    memory.put(1, "a", "early")
    assert [other.get(1, "b"), other.get(1, "a")] == [None, "early"]
    memory.put(1, "b", "later")
    memory.put(2, "a", "of a row not asked about yet")
    assert [other.get(1, "b"), other.get(2, "a")] == [None, "of a row not asked about yet"]


def test_finished_row_reads_the_answers_of_others_again(folder: Folder) -> None:
    memory, other = AnswerMemory(folder), AnswerMemory(folder)
    assert other.get(1, "a") is None
    other.finish([1])
    memory.put(1, "a", "new")
    assert other.get(1, "a") == "new"


def test_finished_row_is_forgotten_by_all_processes(folder: Folder) -> None:
    first, second = AnswerMemory(folder), AnswerMemory(folder)
    first.put(1, "a", "old")
    first.put(2, "a", "of a row that goes on")
    assert second.get(1, "a") == "old"
    second.finish([1, 3])
    third = AnswerMemory(folder)
    assert [third.get(1, "a"), third.get(2, "a")] == [None, "of a row that goes on"]
    third.put(1, "a", "new")  # the row is computed again
    assert AnswerMemory(folder).get(1, "a") == "new"


@pytest.mark.parametrize("cut", range(1, 12))
def test_line_that_a_kill_has_cut_off_is_left_out(folder: Folder, cut: int) -> None:
    memory = AnswerMemory(folder)
    memory.put(1, "a", "whole")
    memory.put(1, "b", "cut off")
    file = the_file(folder)
    file.write_bytes(file.read_bytes()[:-cut])
    assert [AnswerMemory(folder).get(1, key) for key in "ab"] == ["whole", None]


@pytest.mark.parametrize(
    "line", [b"\0\0\0", b"[1]", b"null", b'{"id": "1", "at": 5}', b'{"id": 1, "key": "a", "at": 5}']
)
def test_damaged_line_is_passed_over(folder: Folder, line: bytes) -> None:
    AnswerMemory(folder).put(1, "a", "sound")
    file = the_file(folder)
    file.write_bytes(line + b"\n" + file.read_bytes())
    assert AnswerMemory(folder).get(1, "a") == "sound"


def test_deleted_memory_is_empty_and_has_no_files(folder: Folder) -> None:
    memory = AnswerMemory(folder)
    assert not has_answers(folder)
    memory.put(1, "a", "text")
    assert has_answers(folder)
    delete_answers(folder)
    assert not has_answers(folder)
    assert AnswerMemory(folder).get(1, "a") is None


def test_links_and_pipes_are_not_opened(folder: Folder, tmp_path: Path) -> None:
    memory = AnswerMemory(folder)
    memory.put(1, "a", "text")
    os.mkfifo(the_file(folder).with_name("answers-pipe.jsonl"))
    (tmp_path / "outside").write_text('{"id": 2, "key": "a", "text": "of others", "at": 5}\n')
    Path(folder.path, "answers-link.jsonl").symlink_to(tmp_path / "outside")
    other = AnswerMemory(folder)
    assert [other.get(1, "a"), other.get(2, "a")] == ["text", None]
    delete_answers(folder)
    assert (tmp_path / "outside").exists()
