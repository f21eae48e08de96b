"""Vocabularies: what a file says, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from filters import vocabulary
from filters.vocabulary import content_hash, read_vocabulary


def test_lines_are_concepts_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "v.txt"
    file.write_bytes("\ufeffzebra\r\n\n  red panda \n# 1\ncafé".encode())
    assert read_vocabulary(str(file)) == ("zebra", "red panda", "# 1", "café")


def test_hash_is_of_the_concepts_and_their_order(tmp_path: Path) -> None:
    for name, text in {"a": "dog\ncat\n", "b": "dog\n\n cat", "c": "cat\ndog\n", "d": "dogcat\n"}.items():
        (tmp_path / name).write_text(text)
    hashes = [content_hash(read_vocabulary(str(tmp_path / name))) for name in "abcd"]
    assert hashes[0] == hashes[1]
    assert len({*hashes}) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty: give a text file with one concept a line"),
        (b" \n\n", "is empty"),
        (b"dog\ncat\ndog\n", "line 3: 'dog' stands in line 1 already: remove one"),
        (b"dog\ncaf\xe9\n", "line 2: not UTF-8: save the file as UTF-8"),
        (b"dog\x1b[2J\n", r"line 1: 'dog.\[2J' has characters that are not printable"),
        (b"a" * 201, "line 1: 'a{200}' has more than 200 characters"),
    ],
    ids=["empty", "spaces", "twice", "latin-1", "escape", "long"],
)
def test_file_that_is_no_vocabulary_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "v.txt").write_bytes(data)
    with pytest.raises(ValueError, match=message) as refused:
        read_vocabulary(str(tmp_path / "v.txt"))
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


def test_folder_missing_file_and_large_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(ValueError, match="no such file, or a folder, pipe or device: give a text file"):
            read_vocabulary(str(path))
    (tmp_path / "v.txt").write_text("dog\n" * 3)
    monkeypatch.setattr(vocabulary, "_MOST", 11)
    with pytest.raises(ValueError, match="has more than 11 bytes: give fewer concepts"):
        read_vocabulary(str(tmp_path / "v.txt"))


def test_names_of_the_imagenet_classes_are_a_vocabulary() -> None:
    pytest.importorskip("timm")
    names = read_vocabulary("imagenet")
    assert names[:2] == ("tench", "goldfish")
    assert len(names) == len({*names}) == 998, "crane and maillot are two classes each"
