"""Prompts: read from files, known by their texts, shared out by id."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from captioners.prompts import choose, prompt_hash, read_prompts
from pipeline.recipe import parse_recipe


def test_prompt_file_has_a_prompt_per_paragraph_without_comments(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("# a comment\n\nOne\nin two lines.\n# inside\n\n\nAnother.\n")
    assert read_prompts(str(file)) == ("One\nin two lines.", "Another.")


def test_byte_order_mark_is_not_part_of_a_prompt(tmp_path: Path) -> None:
    for text in ("# a comment\nWhat is it?\n", "What is it?\n"):
        (tmp_path / "p.txt").write_text(text, encoding="utf-8-sig")
        assert read_prompts(str(tmp_path / "p.txt")) == ("What is it?",)
    (tmp_path / "p.txt").write_text("What is it?", encoding="utf-16")
    with pytest.raises(ValueError, match="is no readable file of prompts"):
        read_prompts(str(tmp_path / "p.txt"))


@pytest.mark.parametrize("ours", ["short", "detailed"])
def test_supplied_prompt_lists_have_five_prompts(ours: str) -> None:
    assert len(read_prompts(ours)) == 5


def test_missing_or_empty_prompt_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no prompt in it"):
        read_prompts(str(tmp_path / "p.txt"))
    with pytest.raises(ValueError, match="'shrt' is no readable file of prompts; did you mean 'short'"):
        read_prompts("shrt")


def test_image_keeps_its_prompt_and_prompts_share_images_equally() -> None:
    prompts = read_prompts("short")
    chosen = [choose(prompts, id_) for id_ in range(5000)]
    assert chosen == [choose(prompts, id_) for id_ in range(5000)]
    assert all(900 < times < 1100 for times in Counter(chosen).values())
    assert len(Counter(chosen)) == 5


def test_prompt_is_identified_by_eight_digits() -> None:
    assert prompt_hash("Describe the image.") == "8ed58dcc"  # sha256sum


def table(**settings: Any) -> str:
    stage = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": "http://a/v1"}, **settings}
    return parse_recipe({"pool": {"images": "x"}, "stages": [stage]}, "test").steps[0].table


def test_fingerprint_depends_on_prompt_texts_not_file_or_engine(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("What is it?\n")
    same = table(prompts=["What is it?"])
    assert table(prompts=str(tmp_path / "a.txt")) == table(prompts=str(tmp_path / "b.txt")) == same
    assert table(prompts=["What is it?"], engine={"kind": "transformers"}) == same
    other = {"kind": "server", "url": "http://b/v1", "concurrency": 3}
    assert table(prompts=["What is it?"], engine=other) == same
    assert len({same, table(prompts=["What is it"]), table(prompts=["What is it?"], model="n"), table()}) == 4
    assert table(prompts=["What is it?"], temperature=0.5) != same
