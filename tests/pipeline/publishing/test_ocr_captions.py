"""The subset `ocr`: its captions are read back, its rows are those with text, and a training learns from it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL.Image import Image
from PIL.Image import new as new_image

from captioners.prompts import read_prompts
from core.errors import UserError
from core.stages import ImageStage
from filters.ocr import Ocr
from manifests import Run, open_run
from manifests.storage import Folder
from model.training.data.grounding import boxes_of
from model.training.data.shards import ShardSource
from model.training.metrics_log import read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from pipeline.execution.runner import recipe_of
from pipeline.publishing.ocr_captions import ocr_caption
from pipeline.publishing.publish import Published
from pipeline.publishing.publish import publish as write_shards
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.model.training import training_data
from tests.pipeline.publishing.test_takedown import ids_in
from tests.runs import run_here

HERE = "tests.pipeline.publishing.test_ocr_captions"
IMAGES = 30


class Signs(ImageStage):
    """A stage of another package that writes what `ocr` writes; every third image, by its red, has two lines."""

    name: ClassVar = "signs"
    writes: ClassVar = pa.schema([Ocr.writes.field(name) for name in ("ocr_texts", "ocr_boxes")])

    def measure(self, image: Image) -> Mapping[str, object]:
        red = image.getpixel((0, 0))[0]  # type: ignore[index]
        texts = [f"Room {red}", "<image> out"] if red % 3 == 0 else []
        return {"ocr_texts": texts, "ocr_boxes": [[red, 10, 300, 90], [0, 500, 1000, 999]][: len(texts)]}


class Nothing(Signs):
    """The same, and no image has text."""

    name: ClassVar = "nothing"

    def measure(self, image: Image) -> Mapping[str, object]:
        return {"ocr_texts": [], "ocr_boxes": []}


def publish(opened: Run, out: Path, *subsets: str, **how: Any) -> Published:
    settings = Publish.model_validate({"rows_per_shard": 12, "subsets": subsets, **how})
    return write_shards(opened, recipe_of(opened), settings, Folder.at(out), str(out))


def captioned(folder: Path, stage: str) -> Run:
    pool = folder / "pool"
    pool.mkdir()
    for number in range(IMAGES):
        new_image("RGB", (56, 56), (number, 9, 9)).save(pool / f"{number:02d}.png")
    with chat_server() as server:
        engine = {"kind": "server", "url": server.url}
        stages = [{"stage": f"{HERE}:{stage}"}, {"stage": "short_caption", "model": "m", "engine": engine}]
        opened, _ = run_here({"name": "t", "pool": {"images": str(pool)}, "stages": stages}, folder / "run")
    return opened


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory, engine: None) -> Run:
    """A run of 30 images, 10 of which have text."""
    return captioned(tmp_path_factory.mktemp("signs"), "Signs")


@pytest.fixture(scope="module")
def published(signs: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "out"
    done = publish(signs, out, "short", "ocr")
    assert (done.rows, done.with_text, done.shards) == (30, 10, 6)
    return out


def digests(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_caption_names_each_text_with_its_box() -> None:
    said = ocr_caption("A shop at night", ["OPEN", "Mind the step"], [[102, 40, 310, 95], [88, 700, 420, 760]])
    assert said == (
        "A shop at night. The texts in this image are "
        "OPEN<box>[102,40,310,95]</box>, Mind the step<box>[88,700,420,760]</box>."
    )


@pytest.mark.parametrize("caption", ["Is it open?", "It says “OPEN.”"])
def test_caption_that_ends_a_sentence_gets_no_full_stop(caption: str) -> None:
    assert str(ocr_caption(caption, ["A"], [[1, 2, 3, 4]])).startswith(f"{caption} The texts")


@pytest.mark.parametrize(
    "row", [("A.", [], []), ("A.", None, None), (None, ["A"], [[1, 2, 3, 4]]), ("A.", ["[1, 2,3,4]"], [[1, 2, 3, 4]])]
)
def test_row_without_text_or_caption_has_no_caption(row: tuple[Any, Any, Any]) -> None:
    assert ocr_caption(*row) is None


_SIDE = st.integers(0, 1000)
_BOX = st.tuples(_SIDE, _SIDE, _SIDE, _SIDE).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
_TEXT = st.one_of(
    st.text(min_size=1), st.sampled_from(["[1,2,3,4]", "</box>", "a, b<box>[5,6,7,8]</box>", "< BOX >", "[1,2"])
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(_TEXT, _BOX), min_size=1, max_size=6))
def test_boxes_are_read_back_whatever_the_texts(things: list[tuple[str, tuple[int, ...]]]) -> None:
    said = ocr_caption("A.", [text for text, _ in things], [list(box) for _, box in things])
    kept = [
        (t, b) for t, b in things if t.strip() and not re.search(r"\[\s*\d{1,4}(\s*,\s*\d{1,4}){3}\s*\]", t, re.ASCII)
    ]
    assert (said is None) == (not kept)
    assert boxes_of(said or "", 1000, 1000) == [box for _, box in kept]
    assert (said or "").count("<box>") == (said or "").count("</box>") == len(kept)


def test_subset_has_the_kept_images_with_text(signs: Run, published: Path) -> None:
    rows = pq.read_table(published / "ocr").to_pylist()
    shorts = {row["id"]: row for row in pq.read_table(published / "short").to_pylist()}
    assert (len(rows), len(shorts)) == (10, 30)
    for row in rows:
        red = int(row["source_key"].removesuffix(".png"))
        assert red % 3 == 0
        assert row["image"] == shorts[row["id"]]["image"]
        told = (
            f"The texts in this image are Room {red}<box>[{red},10,300,90]</box>, {{}} out<box>[0,500,1000,999]</box>."
        )
        assert row["caption"] == f"{shorts[row['id']]['caption']} {told.format('<image>')}"
        human, gpt = row["conversations"]
        assert gpt["value"] == f"{shorts[row['id']]['caption']} {told.format('< image >')}"
        assert human["value"].removeprefix("<image>\n") in read_prompts("ocr")


def test_card_says_how_the_subset_was_made(published: Path) -> None:
    card = (published / "README.md").read_text()
    section = card.split("## The subset `ocr`")[1].split("##")[0]
    assert "10 of the images" in section
    assert "The texts in this image are TEXT<box>[x0,y0,x1,y1]</box>" in section
    assert "path: ocr/*.parquet" in card


def test_publishing_again_changes_nothing(signs: Run, published: Path) -> None:
    before = digests(published)
    assert publish(signs, published, "short", "ocr").written == 0
    assert digests(published) == before


def test_other_subsets_are_the_same_without_it(signs: Run, published: Path, tmp_path: Path) -> None:
    publish(signs, tmp_path / "out", "short")
    assert digests(tmp_path / "out/short") == digests(published / "short")
    assert not list((tmp_path / "out/.publication").glob("ocr-*"))


@pytest.mark.parametrize("damage", ["fewer", "receipt"])
def test_shard_with_other_rows_than_its_list_is_refused(
    signs: Run, published: Path, tmp_path: Path, damage: str
) -> None:
    copy = Path(shutil.copytree(published, tmp_path / "copy"))
    shard, receipt = copy / "ocr/shard-00000.parquet", copy / ".publication/ocr-00000.json"
    if damage == "fewer":
        pq.write_table(pq.read_table(shard).slice(1), shard)
    else:
        receipt.unlink()
    with pytest.raises(
        UserError, match=r"shard is damaged|ocr-00000.json: this file is missing; copy it back, or delete ocr/shard"
    ):
        publish(signs, copy, "short", "ocr")
    shard.unlink()
    assert publish(signs, copy, "short", "ocr").written == 2
    assert digests(copy / "ocr") == digests(published / "ocr")


def test_subset_alone_counts_its_own_images(signs: Run, tmp_path: Path) -> None:
    done = publish(signs, tmp_path / "out", "ocr", format="webdataset")
    assert (done.rows, done.with_text) == (10, 10)
    receipts = [json.loads(file.read_text())["ids"] for file in (tmp_path / "out/.publication").glob("ocr-*.json")]
    assert sorted(map(len, receipts)) == sorted(len(ids) for ids in ids_in(Folder.at(tmp_path / "out")).values())


def test_subset_without_any_text_is_refused(tmp_path: Path, engine: None) -> None:
    opened = captioned(tmp_path, "Nothing")
    with pytest.raises(UserError, match="no text was found in any kept image"):
        publish(opened, tmp_path / "out", "ocr")


def test_subset_needs_the_stage_ocr(signs: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(signs.url, tmp_path / "run"))
    (copy / "recipe.yaml").write_text(re.sub(r"(?ms)^- stage: signs.*?(?=^- )", "", (copy / "recipe.yaml").read_text()))
    with pytest.raises(UserError, match="needs short captions and the texts in the images: `vl3syn filter ocr` first"):
        publish(open_run(copy), tmp_path / "out", "ocr")


def test_subset_is_read_by_its_name_only(published: Path) -> None:
    source = ShardSource("texts", str(published), "ocr")
    answers = [source.sample(row).conversation[1]["content"] for row in range(sum(source.blocks))]
    assert sorted(boxes_of(str(answer), 1000, 1000)[0][0] for answer in answers) == list(range(0, 30, 3))
    with pytest.raises(UserError, match=r"ocr/shard-00000.parquet: no short captions"):
        ShardSource("texts", str(published / "ocr"), "short")
    with pytest.raises(UserError, match=r"no ocr captions: publish the run with `subsets: \[ocr\]`"):
        ShardSource("texts", str(published / "short"), "ocr")


def test_training_learns_one_step_of_the_subset(published: Path, tmp_path: Path) -> None:
    recipe = training_data.recipe(tmp_path, steps=1, tokens=512)
    recipe |= {"ask": 0, "sources": {"texts": {"shards": str(published), "caption": "ocr"}}}
    recipe["stages"] = [{**recipe["stages"][0], "mixture": {"texts": 1}}]
    train(parse_recipe(recipe, "test"), tmp_path / "out")
    (step,) = [line for line in read_metrics(tmp_path / "out") if line["kind"] == "step"]
    assert step["samples"] > 0
