"""Clusters, balance and duplicates over a run: trained once, the same in parts of any size, exact as pools grow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from polars.testing import assert_frame_equal

from clustering.kmeans import Clusters
from core.stages import Stage
from manifests import Run, funnel, open_run
from manifests.diversity import diversity
from manifests.embeddings import embedding_column, from_matrix
from manifests.schemas import column
from manifests.sweep import sweep
from pipeline.execution.fitting import sample
from pipeline.execution.runner import recipe_of
from pipeline.execution.stage_job import part_size
from pipeline.recipe import parse_recipe
from pipeline.stages.registry import stage_class
from tests.runs import run, run_here

pytestmark = pytest.mark.usefixtures("engine")

ROWS, DIMENSIONS, CENTRES = 3_000, 16, 30


class Vectors(Stage):
    """Embedding, hash and score out of the pool's own columns: what a model would say."""

    name: ClassVar = "vectors"
    reads: ClassVar = ("pool.vector", "pool.hash", "pool.score")
    writes: ClassVar = pa.schema(
        [
            column("score", pa.float32(), "made up", 0, 1),
            embedding_column("image_embedding", DIMENSIONS, "made-up", "made up"),
            column("phash", pa.int64(), "made up", nominal=True),
        ]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        raw = np.array(batch["pool.vector"].to_pylist(), np.float32)
        vectors, errors = from_matrix(raw)
        columns = {"score": batch["pool.score"], "image_embedding": vectors, "phash": batch["pool.hash"]}
        return pa.table({**columns, "error": pa.array(errors, pa.string())})


@pytest.fixture(autouse=True)
def with_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"vectors": Vectors}
    monkeypatch.setattr("pipeline.recipe_file.stage_class", lambda name: known.get(name) or stage_class(name))


def images(rows: int = ROWS) -> pl.DataFrame:
    """So many images around 30 centres, the first half of them in four; every tenth one is a copy of the one before."""
    dice = np.random.default_rng(1)
    centres = dice.normal(size=(CENTRES, DIMENSIONS))
    which = np.where(np.arange(rows) % 2 == 0, dice.integers(0, 4, rows), dice.integers(0, CENTRES, rows))
    vectors = centres[which] + 0.25 * dice.normal(size=(rows, DIMENSIONS))
    hashes = dice.integers(-(2**63), 2**63, rows, np.int64)
    copies = np.arange(9, rows, 10)
    vectors[copies] = vectors[copies - 1] + 0.001
    hashes[copies] = hashes[copies - 1] ^ 3
    return pl.DataFrame(
        {
            "id": np.arange(rows) * 7919 % 1_000_003,
            "url": [f"https://host{n % 7}.example/{n}.jpg" for n in range(rows)],
            "width": np.where(np.arange(rows) % 10 == 9, 300, 400),
            "height": np.full(rows, 300),
            "vector": vectors.astype(np.float32),
            "hash": hashes,
            "score": dice.random(rows).astype(np.float32),
            "source": which,
        }
    )


def pool(folder: Path, rows: pl.DataFrame, files: int = 1) -> dict[str, Any]:
    folder.mkdir()
    size = -(-rows.height // files)
    for number, part in enumerate(rows.iter_slices(size)):
        part.write_parquet(folder / f"{number}.parquet")
    return {"urls": str(folder / "*.parquet"), "id": "id"}


def recipe(
    pool: dict[str, Any], min_score: float = 0.0, keep: dict[str, Any] | None = None, **how: Any
) -> dict[str, Any]:
    limits = {"max": 0.9999, "min_phash_distance": 4}
    return {
        "pool": pool,
        "stages": [
            {"stage": "vectors", "keep": {"min": min_score}},
            {"stage": "clusters", "clusters": 20, "points_per_centroid": 64, "resources": how},
            {"stage": "duplicates", "keep": limits | ({"per_group_cluster": 40} if keep is None else keep)},
        ],
    }


def facts(opened: Run) -> pl.DataFrame:
    """Everything about every image, as stored, without where the pool had it."""
    manifest = opened.manifest().sort("id").collect()
    return manifest.drop("shard", "key", "offset", "shard_bytes")


def same(one: Run, other: Run) -> None:
    """To the last bit."""
    assert_frame_equal(facts(one), facts(other), check_exact=True)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run over the first 2,700 of the images in one file."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patched:
        with_vectors.__wrapped__(patched)  # type: ignore[attr-defined]
        opened, _ = run_here(recipe(pool(folder / "pool", images()[:2700]), actors=1), folder / "run")
    return folder, opened


@pytest.mark.thorough
def test_parts_row_order_and_actors_do_not_change_clusters(tmp_path: Path, first: tuple[Path, Run]) -> None:
    shuffled = images()[:2700].sample(fraction=1, shuffle=True, seed=3)
    how = {"actors": 2, "part_rows": 300, "batch_size": 77}
    opened, _ = run(recipe(pool(tmp_path / "pool", shuffled, files=4), **how), tmp_path / "run")
    same(opened, first[1])


def test_stored_centroids_record_their_sample(first: tuple[Path, Run]) -> None:
    (file,) = (first[0] / "run/fitted").rglob("*.parquet")
    provenance = json.loads(pq.read_schema(file).metadata[b"vl3syn"])
    assert (provenance["encoder"], provenance["alive"], provenance["sample"], provenance["points"]) == (
        "made-up",
        2700,
        1280,
        1280,
    )
    assert pl.read_parquet(file).height == 20


def test_groups_are_cut_to_their_quota_and_the_rest_has_a_reason(first: tuple[Path, Run]) -> None:
    _, opened = first
    kept = facts(opened).filter(pl.col("status") == "kept")
    assert kept["cluster"].value_counts()["count"].max() == 40
    last = funnel(opened).stages[-1]
    assert last.reasons["duplicate_similarity > 0.9999"] == 270
    assert set(last.reasons) == {"duplicate_similarity > 0.9999", "cluster not among its 40, at random"}
    seen = diversity(opened, "cluster")
    assert (seen.reached.rows, seen.kept.rows) == (2700, kept.height)
    assert seen.kept.effective > seen.reached.effective
    table = sweep(opened, {"duplicates.per_group_cluster": [10, 40], "duplicates.max": [0.9999, 1]})
    assert (
        table.filter((pl.col("duplicates.per_group_cluster") == 40) & (pl.col("duplicates.max") == 0.9999))[
            "kept"
        ].item()
        == kept.height
    )


@pytest.mark.usefixtures("here")
def test_new_images_join_old_clusters_and_are_compared_in_them(tmp_path: Path, first: tuple[Path, Run]) -> None:
    folder, _ = moved(first[0], tmp_path / "grown")
    new = images()[2700:].filter(pl.col("source") < 2)
    new.write_parquet(folder / "pool" / "9.parquet")
    grown = recipe({"urls": str(folder / "pool/*.parquet"), "id": "id"}, actors=1)
    opened, jobs = run(grown, folder / "run")
    assert jobs["clusters"].computed == new.height
    assert [e["fitted"] for e in opened.recipe["stages"][1:2]] == [e["fitted"] for e in first[1].recipe["stages"][1:2]]
    clusters = opened.facts("clusters").collect()
    touched = clusters.join(new.select("id"), on="id", how="semi")["cluster"].unique()
    assert touched.len() < 20, "or the next line shows nothing"
    assert jobs["duplicates"].computed == clusters.filter(pl.col("cluster").is_in(touched.implode())).height

    shutil.copytree(folder / "run/fitted", tmp_path / "afresh/fitted")
    afresh, _ = run(grown, tmp_path / "afresh")
    same(opened, afresh)

    opened, jobs = run(grown, folder / "run", refit=True)
    assert jobs["clusters"].computed == jobs["duplicates"].computed == 2700 + new.height
    assert opened.recipe["stages"][1]["fitted"] != afresh.recipe["stages"][1]["fitted"]
    assert len(list((folder / "run/fitted").rglob("*.parquet"))) == 2, "what was trained before stays"


@pytest.mark.usefixtures("here")
def test_copy_is_kept_when_its_original_is_dropped(tmp_path: Path, first: tuple[Path, Run]) -> None:
    folder, opened = moved(first[0], tmp_path / "tightened")
    before = facts(opened)
    again = recipe({"urls": str(folder / "pool/*.parquet"), "id": "id"}, min_score=0.5, keep={})
    (foretold,) = sweep(opened, {"vectors.min": [0.5]}).to_dicts()
    opened, jobs = run(again, folder / "run")
    assert jobs["clusters"].computed == 0
    assert 0 < jobs["duplicates"].computed < 1350, "the groups of those copies, and no others"
    after = facts(opened).filter(pl.col("score") >= 0.5)
    alive = set(after["id"])
    copies = before.filter(pl.col("duplicate_similarity") > 0.9999).filter(pl.col("id").is_in(alive))
    left_alone = copies.filter(~pl.col("duplicate_of").is_in(alive))["id"].to_list()
    assert len(left_alone) > 30
    assert foretold["to_compute"] == len(left_alone)
    status = dict(after.select("id", "status").iter_rows())
    assert {status[i] for i in left_alone} == {"kept"}
    assert {status[i] for i in copies["id"] if i not in left_alone} == {"dropped"}
    dropped = after.filter(pl.col("drop_stage") == "duplicates")
    assert dropped["duplicate_of"].is_in(list(alive)).all(), "nothing is dropped for the sake of what is not there"

    loosened = recipe({"urls": str(folder / "pool/*.parquet"), "id": "id"}, keep={})
    opened, jobs = run(loosened, folder / "run")
    assert jobs["duplicates"].computed > 0
    copies = before["duplicate_similarity"] > 0.9999
    assert_frame_equal(facts(opened).select("id", "duplicate_of"), before.select("id", "duplicate_of"))
    assert funnel(opened).survivors == 2700 - copies.sum(), "copies whose original is back are dropped again"
    assert run(loosened, folder / "run")[1]["duplicates"].computed == 0


@pytest.mark.usefixtures("here")
def test_duplicates_are_grouped_by_texts_or_columns_of_the_index(tmp_path: Path) -> None:
    """Texts do not pass the driver with the ids; and `shard` is no stage's column."""
    rows = images(200)
    settings = recipe(pool(tmp_path / "pool", rows, files=3))
    settings["stages"][1:] = [{"stage": "host"}, {"stage": "duplicates", "within": "host", "keep": {"max": 0.9999}}]
    opened, jobs = run(settings, tmp_path / "run")
    assert jobs["duplicates"].computed == 200
    host = dict(rows.select("id", pl.col("url").str.extract("//(host.)")).iter_rows())
    pairs = opened.facts("duplicates").filter(pl.col("duplicate_of").is_not_null()).collect()
    assert pairs.height == 200 - 7
    assert all(host[a] == host[b] for a, b in pairs.select("id", "duplicate_of").iter_rows())
    settings["stages"][2] |= {"within": "shard"}
    opened, jobs = run(settings, tmp_path / "run")
    assert opened.facts("duplicates").collect()["duplicate_of"].null_count() == 3
    assert funnel(opened).stages[-1].dropped == 20, "the copies, none of which is in another shard"


def test_parts_of_whole_groups_are_as_documented() -> None:
    def parts(rows: int, **resources: int) -> int:
        settings = recipe({"urls": "x"}, keep={})
        settings["stages"][2]["resources"] = resources
        return -(-rows // part_size(rows, parse_recipe(settings, "test").steps[2]))

    assert [parts(n * 10**6) for n in (10, 100, 700)] == [64, 96, 668]
    assert [parts(n * 10**6, part_rows=8_000_000) for n in (10, 100, 700)] == [2, 13, 88]


def test_sample_comes_from_all_images_independent_of_order(first: tuple[Path, Run]) -> None:
    step = recipe_of(first[1]).steps[1]
    ids = pl.Series(range(10_000))
    drawn = sample(step, ids)["id"]
    assert drawn.len() == drawn.n_unique() == 20 * 64
    assert 4_700 < drawn.mean() < 5_300, "not the first ones"
    assert set(drawn) == set(sample(step, ids.sample(fraction=1, shuffle=True, seed=1))["id"])
    grown = set(sample(step, pl.Series(range(11_000)))["id"])
    assert len(grown & set(drawn)) > 0.85 * 20 * 64


@pytest.mark.usefixtures("here")
def test_more_clusters_than_images_are_refused_in_one_line(tmp_path: Path) -> None:
    settings = recipe(pool(tmp_path / "pool", images(12)))
    with pytest.raises(ValueError, match=r"20 clusters.* 12 "):
        run(settings, tmp_path / "run")


@pytest.mark.usefixtures("here")
def test_missing_gpu_is_refused_before_training(tmp_path: Path) -> None:
    settings = recipe(pool(tmp_path / "pool", images(40)), num_gpus=2)
    with pytest.raises(ValueError, match=r"clusters: an actor needs .* 2 GPU on one node, and the nodes have .* 0 GPU"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run/fitted").exists()


class Dying(Clusters):
    """Takes its process with it, as where there is too little memory."""

    driver_rows: ClassVar = 0

    def fit(self, sample: pa.Table) -> tuple[pa.Table, dict[str, object]]:
        os._exit(1)


def test_killed_training_of_clusters_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"vectors": Vectors, "clusters": Dying}
    monkeypatch.setattr("pipeline.recipe_file.stage_class", lambda name: stages.get(name) or stage_class(name))
    with pytest.raises(ValueError, match="Ray stopped under the job"):
        run(recipe(pool(tmp_path / "pool", images(40))), tmp_path / "run")


@pytest.mark.usefixtures("here")
def test_missing_centroids_of_another_run_are_refused(tmp_path: Path) -> None:
    settings = recipe(pool(tmp_path / "pool", images(12)))
    settings["stages"][1]["fitted"] = "0123456789abcdef"
    with pytest.raises(ValueError, match=r"fitted 0123456789abcdef is not in .*train anew"):
        run(settings, tmp_path / "run")


@pytest.mark.usefixtures("here")
def test_wrong_centroids_are_an_error_and_other_files_ignored(tmp_path: Path, first: tuple[Path, Run]) -> None:
    settings = recipe(pool(tmp_path / "pool", images(100)))
    (brought,) = (first[0] / "run/fitted").rglob("*.parquet")
    folder = tmp_path / "run/fitted" / brought.parent.name
    folder.mkdir(parents=True)
    shorter = pl.read_parquet(brought).with_columns(pl.col("centroid").list.head(8))
    shorter.write_parquet(folder / brought.name)
    shutil.copy(brought, folder / "centroids.parquet")
    (tmp_path / "run/recipe.yaml").write_text(yaml.safe_dump(parse_recipe(settings, "test").resolved()))
    with pytest.raises(ValueError, match="clusters: the centroids in fitted/ have 8 numbers and the embeddings 16"):
        run(settings, tmp_path / "run")


def moved(folder: Path, to: Path) -> tuple[Path, Run]:
    """A copy of a run and its pool."""
    shutil.copytree(folder, to)
    written = (to / "run/recipe.yaml").read_text()
    (to / "run/recipe.yaml").write_text(written.replace(str(folder), str(to)))
    return to, open_run(to / "run")


DRIVER = """
import json, sys
import pipeline.recipe_file
from pipeline.stages.registry import stage_class
from tests.e2e.test_clusters import Vectors
from tests.runs import run, run_here
pipeline.recipe_file.stage_class = lambda name: Vectors if name == "vectors" else stage_class(name)
run(json.loads(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        pytest.param("fitted/*/*.parquet", 1, marks=pytest.mark.slow, id="trained"),
        pytest.param("stages/clusters-*/*.parquet", 4, id="assigning", marks=pytest.mark.slow),
        pytest.param("stages/duplicates-*/*.parquet", 3, marks=pytest.mark.slow, id="comparing"),
    ],
)
def test_resumed_run_has_the_same_clusters_and_choice(
    files: str, parts: int, tmp_path: Path, first: tuple[Path, Run]
) -> None:
    settings = recipe(pool(tmp_path / "pool", images()[:2700]), part_rows=300, actors=1)
    settings["stages"][2]["resources"] = {"part_rows": 300}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", DRIVER, json.dumps(settings), str(tmp_path / "run")]
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    begin = time.monotonic()
    while len(list((tmp_path / "run").glob(files))) < parts:
        assert driver.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < begin + 120
        time.sleep(0.002)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # its workers see that it is gone
    killed = open_run(tmp_path / "run")
    stored = {s.name: s.table.scan().select(pl.len()).collect().item() for s in killed.stages}
    assert stored["duplicates"] < 2700
    opened, jobs = run(settings, tmp_path / "run")
    same(opened, first[1])
    assert jobs["clusters"].computed == 2700 - stored["clusters"]
    assert jobs["duplicates"].computed == 2700 - stored["duplicates"]
    assert len(list((tmp_path / "run/fitted").rglob("*.parquet"))) == 1, "trained once"
