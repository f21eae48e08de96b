"""Files of annotations: their endings and encodings, large ones, and those that change."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from model.training.data.annotations import AnnotationSource
from tests.model.training.lines import source, turns


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("encode", "reason"),
    [
        (gzip.compress, "compressed by gzip, not text: unpack it"),
        (bz2.compress, "compressed by bzip2, not text: unpack it"),
        (lzma.compress, "compressed by xz, not text: unpack it"),
        (lambda data: data.decode().encode("utf-16"), "UTF-16 .*: save it as UTF-8"),
        (lambda data: data.decode().encode("utf-16-le"), "UTF-16 .*: save it as UTF-8"),
        (lambda data: data.decode().encode("utf-32"), "UTF-16 or UTF-32"),
    ],
)
def test_file_in_another_encoding_is_refused(
    tmp_path: Path, suffix: str, encode: Callable[[bytes], bytes], reason: str
) -> None:
    file = tmp_path / f"notes{suffix}"
    line = json.dumps({"conversations": turns("What?", "It.")})
    file.write_bytes(encode((f"{line}\n{line}\n" if suffix == ".jsonl" else f"[{line}]").encode()))
    with pytest.raises(UserError, match=rf"^notes: .*notes\{suffix}: {reason}"):
        AnnotationSource("notes", str(file))


@pytest.mark.parametrize("name", ["notes.JSON", "notes.JSONL", "notes.ndjson"])
def test_endings_in_upper_case_are_read(tmp_path: Path, name: str) -> None:
    entry = {"conversations": turns("What?", "It.")}
    text = json.dumps([entry], indent=1) if name.endswith("JSON") else json.dumps(entry)
    (tmp_path / name).write_text(text)
    annotations = AnnotationSource("notes", str(tmp_path / name))
    assert (annotations.blocks, annotations.sample(0).conversation[1]["content"]) == ((1,), "It.")


def test_large_file_is_not_loaded_into_memory(tmp_path: Path) -> None:
    """20 MB: opened and read with less than 2 MB, of which 8 bytes a line stay."""
    file, lines = tmp_path / "notes.jsonl", 10_000
    with open(file, "w") as opened:
        for number in range(lines):
            entry = {"pad": "x" * 2000, "conversations": turns("What?", f"It is {number}.")}
            opened.write(json.dumps(entry) + "\n")
    tracemalloc.start()
    annotations = AnnotationSource("notes", str(file), blocks_in_memory=1)
    opened_with = tracemalloc.get_traced_memory()[1]
    for number in (0, 255, 256, 5000, lines - 1):
        assert annotations.sample(number).conversation[1]["content"] == f"It is {number}."
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened_with < 500_000
    assert peak < 3_000_000
    assert sum(annotations.blocks) == lines
    assert max(annotations.blocks) < 1000


def test_changed_file_gives_bad_samples_not_wrong_ones(tmp_path: Path) -> None:
    entries = [{"conversations": turns("What?", str(number) * 50)} for number in range(5)]
    annotations = source(tmp_path, entries)
    text = (tmp_path / "notes.jsonl").read_text()
    (tmp_path / "notes.jsonl").write_text(text[: len(text) // 2])
    assert annotations.sample(0).conversation[1]["content"] == "0" * 50
    with pytest.raises(ValueError, match=r"notes\.jsonl line 5: no JSON: "):
        annotations.sample(4)
