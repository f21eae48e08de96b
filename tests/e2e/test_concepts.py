"""Concepts over a run: an exact draw, the same in parts of any size, and what the views say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from core.stages import Stage
from filters.clip_text import ClipText
from manifests import Run, funnel
from manifests.diversity import diversity
from manifests.embeddings import embedding_column, from_matrix, to_matrix
from manifests.explain import explain
from manifests.sweep import sweep
from pipeline.reporting.report import report
from pipeline.stages.registry import stage_class
from tests.runs import run_here

ROWS, TOTAL = 900, 120
WORDS = ("dog", "cat", "zebra", "whale", "piano", "tower", "cloud", "rocket", "bicycle", "lemon")


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in each run: they decide the second concept of each image, and with it the draw."""
    import torch

    from tests.checkpoints import save_clip

    with torch.random.fork_rng():
        torch.manual_seed(1)
        return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def recipe(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`recipe(pool, keep, **resources)`: images whose embeddings lie near the prompts of words with a heavy tail."""
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "words.txt").write_text("\n".join(WORDS))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))

        class Vectors(Stage):
            """Embeddings out of the pool's own columns."""

            name: ClassVar = "vectors"
            reads: ClassVar = ("pool.vector",)
            writes: ClassVar = pa.schema([embedding_column("image_embedding", 64, str(tiny_clip), "made up")])

            def __call__(self, batch: pa.Table) -> pa.Table:
                vectors, errors = from_matrix(np.array(batch["pool.vector"].to_pylist(), np.float32))
                return pa.table({"image_embedding": vectors, "error": pa.array(errors, pa.string())})

        patched.setattr(
            "pipeline.recipe_file.stage_class", lambda name: Vectors if name == "vectors" else stage_class(name)
        )

        def written(pool: Path, keep: dict[str, Any] | None = None, **resources: Any) -> dict[str, Any]:
            vocabulary = {"vocabulary": str(folder / "words.txt"), "encoder": str(tiny_clip), "precision": "float32"}
            concepts = {"stage": "concepts", "top": 2, **vocabulary, "keep": keep or {}, "resources": resources}
            return {"pool": {"urls": str(pool / "*.parquet"), "id": "id"}, "stages": [{"stage": "vectors"}, concepts]}

        yield written


@pytest.fixture(scope="module")
def images(tiny_clip: Path) -> pl.DataFrame:
    prompts = pa.table({"alt_text": [f"a photo of a {word}." for word in WORDS]})
    text = ClipText(encoder=str(tiny_clip), texts=("alt_text",), precision="float32").load()(prompts)
    centres, _ = to_matrix(text["alt_text_embedding"])
    dice = np.random.default_rng(0)
    shares = 1 / np.arange(1, len(WORDS) + 1)
    which = dice.choice(len(WORDS), ROWS, p=shares / shares.sum())
    vectors = centres[which] + 0.001 * dice.normal(size=(ROWS, 64))
    vectors[7] = 0  # an image without an embedding
    urls = [f"https://h.example/{n}.jpg" for n in range(ROWS)]
    ids = np.arange(ROWS) * 7919 % 1_000_003
    return pl.DataFrame({"id": ids, "url": urls, "vector": vectors.astype(np.float32), "word": which})


def pool(folder: Path, rows: pl.DataFrame, files: int = 1) -> Path:
    folder.mkdir()
    for number, part in enumerate(rows.iter_slices(-(-rows.height // files))):
        part.write_parquet(folder / f"{number}.parquet")
    return folder


@pytest.fixture(scope="module")
def first(recipe: Any, images: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("first")
    return run_here(recipe(pool(folder / "pool", images), {"total": TOTAL}), folder / "run")[0]


def facts(opened: Run) -> pl.DataFrame:
    return opened.manifest().sort("id").collect().drop("shard", "key", "offset", "shard_bytes")


def test_draw_is_exact_and_its_words_are_more_even(first: Run, images: pl.DataFrame) -> None:
    kept = images.join(facts(first).filter(status="kept"), on="id")
    assert kept.height == TOTAL
    assert [WORDS[word] for word in kept["word"]] == kept["concept"].to_list()
    entropy = diversity(first, "concept")
    assert entropy.kept.effective > entropy.reached.effective + 1.5


def test_parts_batches_and_row_order_do_not_change_the_draw(
    recipe: Any, first: Run, images: pl.DataFrame, tmp_path: Path
) -> None:
    shuffled = images.sample(fraction=1, shuffle=True, seed=3)
    how = {"part_rows": 100, "batch_size": 13}
    opened, _ = run_here(recipe(pool(tmp_path / "pool", shuffled, 4), {"total": TOTAL}, **how), tmp_path / "run")
    assert_frame_equal(facts(opened), facts(first), check_exact=True)


def test_funnel_and_explain_name_the_draw(first: Run) -> None:
    stage = funnel(first).stages[-1]
    assert (stage.seen, stage.kept, stage.errors) == (ROWS - 1, TOTAL, 0)
    assert stage.reasons == {f"concepts not among the {TOTAL} drawn by concepts": ROWS - 1 - TOTAL}
    row = facts(first).filter(status="dropped").row(0, named=True)
    (account,) = explain(first, str(row["id"]))
    listed = ", ".join(row["concepts"])
    assert account.drop_reason == f"concepts [{listed}] not among the {TOTAL} drawn by concepts"
    assert account.stages[-1].rules == {"total_concepts": TOTAL}


def test_sweep_of_totals_computes_nothing(first: Run) -> None:
    swept = sweep(first, {"concepts.total": [1, 50, TOTAL, 5000]})
    assert swept.rows() == [(1, 1, 0), (50, 50, 0), (TOTAL, TOTAL, 0), (5000, ROWS - 1, 0)]


def test_groups_by_a_list_count_a_row_in_each_group(first: Run) -> None:
    by = diversity(first, "concepts")
    assert (by.reached.rows, by.kept.rows) == (2 * (ROWS - 1), 2 * TOTAL)
    stored = facts(first).filter(pl.col("concepts").list.contains("zebra"))
    (zebra,) = by.sizes.filter(group="zebra").rows()
    assert zebra == ("zebra", stored.height, stored.filter(status="kept").height)
    assert diversity(first, "concept").reached.rows == ROWS - 1


def test_page_shows_the_concepts_as_groups(first: Run) -> None:
    page = report(first)
    assert f"dropped if concepts not among the {TOTAL} drawn by concepts" in page
    assert "Images per concepts, largest first: 10 groups" in page


def test_moved_total_and_seed_compute_nothing(recipe: Any, first: Run, images: pl.DataFrame, tmp_path: Path) -> None:
    folder = pool(tmp_path / "pool", images)
    run_here(recipe(folder), tmp_path / "run")
    opened, jobs = run_here(recipe(folder, {"total": TOTAL, "seed": 1}), tmp_path / "run")
    assert [jobs[name].computed for name in ("vectors", "concepts")] == [0, 0]
    kept = [set(facts(run).filter(status="kept")["id"]) for run in (first, opened)]
    assert len(kept[1]) == TOTAL
    assert kept[0] != kept[1]


def test_concept_makes_groups_for_other_rules(recipe: Any, images: pl.DataFrame, tmp_path: Path) -> None:
    keep = {"per_group_concept": 5, "order": "highest_concept_score"}
    opened, _ = run_here(recipe(pool(tmp_path / "pool", images), keep), tmp_path / "run")
    assert diversity(opened, "concept").kept.largest == 5
