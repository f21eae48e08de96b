"""A benchmark out of a folder or file: what is found in data, what is said of bad parts, and its hash."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from core.errors import UserError
from core.images import decode
from filters.overlap import benchmark as module
from filters.overlap.benchmark import Benchmark, Hit
from filters.overlap.files import content_hash
from tests.filters.overlap.pictures import jpeg, png, scene

QUESTION = "Which of the three harbour cranes stands nearest to the red lighthouse keeper's cottage?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rows with an image and a question, and one image beside them."""
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / f"images/{number}.png").write_bytes(png(scene(number)))
    rows = [
        {"id": "harbour", "image": "images/0.png", "question": QUESTION, "answer": "the left one"},
        {"id": "plain", "image": "images/1.png", "question": "What is in the image?"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def hits(benchmark: Benchmark, image: bytes | None, *texts: str) -> list[Hit]:
    pictures = [] if image is None else [(image, benchmark.decoded(image))]
    return list(benchmark.search(pictures, texts).hits)


def test_images_and_questions_are_found_with_their_ids(folder: Path) -> None:
    benchmark = Benchmark(str(folder))
    assert (benchmark.items, benchmark.images, benchmark.texts) == (3, 3, 2)
    (beside,) = hits(benchmark, jpeg(scene(2)))
    assert (beside.kind, beside.benchmark_id, beside.with_question) == ("picture", "images/2.png", False)
    (both,) = hits(benchmark, png(scene(0)), f"<image>\n{QUESTION}")
    assert (both.kind, both.benchmark_id, both.overlap, both.with_question) == ("file", "harbour", 1.0, True)
    (text,) = hits(benchmark, jpeg(scene(50)), QUESTION)
    assert (text.kind, text.benchmark_id, text.distance) == ("text", "harbour", None)
    assert text.benchmark_text == QUESTION


def test_generic_question_counts_only_with_its_image(folder: Path) -> None:
    benchmark = Benchmark(str(folder / "rows.jsonl"))
    assert hits(benchmark, jpeg(scene(50)), "What is in the image?") == []
    assert benchmark.search([], ["What is in the image?"]).generic == 1
    (hit,) = hits(benchmark, jpeg(scene(1)), "What is in the image?")
    assert (hit.benchmark_id, hit.with_question) == ("plain", True)


def test_hash_is_that_of_the_content(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = content_hash(str(folder))
    assert before == Benchmark(str(folder)).content
    moved = tmp_path_factory.mktemp("b") / "moved"
    folder.rename(moved)
    assert content_hash(str(moved)) == before
    (moved / "images/2.png").write_bytes(png(scene(9)))
    assert content_hash(str(moved)) != before
    assert content_hash(str(moved)) == Benchmark(str(moved)).content


def test_parts_that_cannot_be_used_are_counted(folder: Path) -> None:
    outside = folder.parent / "outside.png"
    outside.write_bytes(png(scene(0)))
    (folder / "images/link.png").symlink_to(outside)
    os.mkfifo(folder / "images/pipe.png")
    (folder / "images/broken.png").write_bytes(png(scene(0))[:200])
    rows = ["no json", '{"sha": 1}', '{"image": "../outside.png"}', '{"image": "/etc/passwd"}', '{"image": "gone.png"}']
    (folder / "more.jsonl").write_text("\n".join(rows))
    benchmark = Benchmark(str(folder))
    assert benchmark.problems.counts == {
        "rows that cannot be read": 1,
        "rows without an image, question or answer": 1,
        "images that cannot be read": 5,
        "images that cannot be decoded": 1,
    }
    assert benchmark.images == 3


def test_picture_of_many_questions_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def counted(data: bytes) -> Image.Image:
        decoded.append(data)
        return decode(data)

    (folder / "images/broken.png").write_bytes(png(scene(0))[:200])
    names = ("0", "broken", "1", "0", "broken", "1", "0")
    rows = [{"id": f"q{n}", "image": f"images/{name}.png", "question": f"{n}?"} for n, name in enumerate(names)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", counted)
        benchmark = Benchmark(str(folder))
    assert (benchmark.images, len(decoded), len(set(decoded))) == (6, 5, 4)
    assert benchmark.problems.counts == {"images that cannot be decoded": 2}
    assert [hit.benchmark_id for hit in hits(benchmark, jpeg(scene(0)))] == ["q0", "q3", "q6"]
    assert [hit.benchmark_id for hit in hits(benchmark, jpeg(scene(1)))] == ["q2", "q5"]


def test_packed_files_in_a_folder_are_counted(folder: Path) -> None:
    for name in ("data.zip", "images/test.tar.gz", "more.arrow", "README.md", "questions.txt", "clip.mp4"):
        (folder / name).write_bytes(b"1")
    problems = Benchmark(str(folder)).problems
    assert problems.counts == {"packed files, which are not read: unpack them": 3}
    assert list(problems.examples.values()) == ["data.zip"]


def test_rows_of_one_id_are_told_apart(folder: Path) -> None:
    (folder / "images/0.png").unlink()
    rows = [{"id": "plain", "question": QUESTION}, {"video_id": "v", "question": "a"}, {"video_id": "v", "q": "b"}]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = Benchmark(str(folder))
    assert [item.id for item in benchmark._rows] == [
        *("plain", "v", "v (more.jsonl:3)", "harbour", "plain (rows.jsonl:2)", "images/2.png"),
    ]
    assert benchmark.content == content_hash(str(folder))


def test_question_marks_all_images_of_its_row(folder: Path) -> None:
    row = {"id": "two", "images": ["images/0.png", "images/1.png"], "question": QUESTION}
    (folder / "rows.jsonl").write_text(json.dumps(row))
    found = Benchmark(str(folder))
    pictures = [(data, found.decoded(data)) for data in (png(scene(0)), png(scene(1)))]
    assert [(hit.kind, hit.with_question) for hit in found.search(pictures, [QUESTION]).hits] == [("file", True)] * 2


@pytest.mark.parametrize("content", ["{}\n", '{"image": "gone.png"}\n', ""])
def test_benchmark_of_which_nothing_can_be_used_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(UserError, match="no image and no question"):
        Benchmark(str(tmp_path / "rows.jsonl"))
    with pytest.raises(UserError, match="no such folder or file"):
        Benchmark(str(tmp_path / "nowhere"))


def test_order_of_the_rows_does_not_matter(folder: Path) -> None:
    texts = [f"before {QUESTION} after"]
    forward = hits(Benchmark(str(folder)), jpeg(scene(1)), *texts)
    lines = (folder / "rows.jsonl").read_text().splitlines()
    (folder / "rows.jsonl").write_text("\n".join(reversed(lines)))
    assert hits(Benchmark(str(folder)), jpeg(scene(1)), *texts) == forward
    assert [hit.benchmark_id for hit in forward] == ["plain", "harbour"]
