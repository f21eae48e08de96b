from __future__ import annotations

from pathlib import Path

import pytest

from model import Processor, VideoLLaMA3
from model.config import preset
from pipeline.serving.answerer import Answerer
from pipeline.serving.page.visitors import Visitors
from pipeline.serving.queue import Limits, Queue


@pytest.fixture
def visitors(tmp_path: Path) -> Visitors:
    answerer = Answerer(VideoLLaMA3(preset("tiny")), Processor.tiny(), ["mine"])
    return Visitors(answerer, Queue(Limits(), ends=lambda: False), tmp_path)


def test_visitors_have_folders_and_conversations_of_their_own(visitors: Visitors) -> None:
    first, second = visitors.of("a"), visitors.of("b")
    assert first is visitors.of("a")
    assert first.folder != second.folder
    assert first.talk is not second.talk


def test_all_of_a_visitor_goes_with_it(visitors: Visitors, tmp_path: Path) -> None:
    visitor = visitors.of("a")
    file = visitor.folder / "medium-0.mp4"
    file.write_bytes(b"film")
    name = visitor.talk.url(file).removeprefix("/media/")
    assert len(name) >= 32
    assert visitors.film(name) == file
    assert visitors.film("other") is None
    visitors.leave("a")
    visitors.leave("never came")
    assert visitors.film(name) is None
    assert list(tmp_path.iterdir()) == []


def test_new_conversation_forgets_the_old_one(visitors: Visitors) -> None:
    visitor = visitors.of("a")
    before, stream = visitor.talk, visitor.watch
    name = before.url(before.folder / "medium-0.mp4").removeprefix("/media/")
    visitors.begin_anew("a")
    assert visitors.of("a").talk is not before
    assert not before.folder.exists()
    assert visitors.film(name) is None
    assert visitors.of("a").watch is stream, "its film plays on"
    assert stream.folder.is_dir()


def test_longest_absent_visitor_makes_room(visitors: Visitors, tmp_path: Path) -> None:
    first = visitors.of("0")
    for number in range(1, 64):
        visitors.of(str(number))
    visitors.of("0")
    visitors.of("another")
    assert visitors.of("0") is first
    assert len(list(tmp_path.iterdir())) == 64
