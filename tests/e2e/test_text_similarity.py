"""Similarity to texts other than the coarse caption: by alt text without a captioner, as DataComp filters."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import open_run
from tests.runs import run, run_here

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]
ALTS = ["a cat", "a cup of coffee", None, "rocket", " ", "brick wall", "a page", "an astronaut"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, photographs: list[Path]) -> Path:
    """Eight photographs, of which six have alt texts, and a file that is no image."""
    images = [*(path.read_bytes() for path in photographs[: len(ALTS)]), b"torn"]
    file = tmp_path_factory.mktemp("pool") / "a.parquet"
    titles = ["a title", *[None] * len(ALTS)]
    pq.write_table(pa.table({"image": images, "alt_text": [*ALTS, "none"], "title": titles, "size": [1] * 9}), file)
    return file


@pytest.fixture(scope="module")
def indexed(engine: str, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    url = tmp_path_factory.mktemp("indexed") / "run"
    run({"name": "t", "pool": {"parquet": str(pool)}}, url)
    return url


def conserved(funnel: dict[str, Any]) -> bool:
    lost = sum(stage[why] for stage in funnel["stages"] for why in ("dropped", "errors", "pending"))
    return bool(funnel["rows"] == funnel["survivors"] + lost)


@pytest.mark.usefixtures("here")
def test_alt_texts_are_compared_by_commands_alone(
    tmp_path: Path, indexed: Path, vl3syn: Vl3syn, tiny_clip: Path
) -> None:
    url = Path(shutil.copytree(indexed, tmp_path / "run"))
    refused = vl3syn("filter", "similarity", "--run", url, "--encoder", tiny_clip)
    assert refused.returncode == 1
    assert "or compare with the alt texts, by --texts alt_text" in refused.stderr
    arguments = ("filter", "similarity", "--run", url, "--texts", "alt_text")
    done = vl3syn(*arguments, "--encoder", tiny_clip, "--json")
    jobs = [(job["stage"], job["computed"], job["errors"]) for job in json.loads(done.stdout)["jobs"]]
    assert jobs == [("clip", 8, 0), ("clip_text", 8, 0), ("similarity", 8, 0)], "no row fails for its alt text"
    facts = open_run(url).facts("similarity").collect().sort("id")
    cosines = facts["alt_similarity"].drop_nulls().to_list()
    assert (facts["alt_similarity"].null_count(), len(set(cosines))) == (2, 6)

    threshold = round(statistics.median(cosines), 4)
    done = vl3syn(*arguments, "--min", threshold, "--json")
    report = json.loads(done.stdout)
    assert [job["computed"] for job in report["jobs"]] == [0, 0, 0]
    stage = report["funnel"]["stages"][-1]
    lower = sum(cosine < threshold for cosine in cosines)
    assert stage["reasons"] == {f"alt_similarity < {threshold}": lower, "alt_similarity is missing": 2}
    assert (stage["dropped"], report["funnel"]["survivors"]) == (lower + 2, 6 - lower)
    assert conserved(report["funnel"])
    manifest = open_run(url).manifest().collect()
    reasons = manifest.filter((manifest["alt_text"].is_null()) | (manifest["alt_text"] == " "))["drop_reason"]
    assert reasons.to_list() == ["alt_similarity is missing"] * 2

    refused = vl3syn("filter", "similarity", "--run", url, "--texts", "alt_text,short_caption")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "compares with alt_text already" in refused.stderr


def test_texts_of_the_pool_are_compared(tmp_path: Path, pool: Path, indexed: Path, tiny_clip: Path) -> None:
    url = shutil.copytree(indexed, tmp_path / "run")
    clip, texts = {"encoder": str(tiny_clip)}, {"texts": ["pool.title"]}
    stages = [{"stage": "clip", **clip}, {"stage": "clip_text", **clip, **texts}, {"stage": "similarity", **texts}]
    written = {"name": "t", "pool": {"parquet": str(pool)}, "stages": stages}
    opened, jobs = run_here(written, url)
    assert (jobs["similarity"].computed, jobs["similarity"].errors) == (8, 0)
    rows = opened.manifest().filter(status="kept").collect()
    assert rows.filter(rows["pool_title_similarity"].is_not_null())["key"].to_list() == ["0"]
    stages[1]["texts"] = ["pool.size"]
    with pytest.raises(ValueError, match=r"pool\.size is int64, not text: name another column in `texts`"):
        run_here({**written, "stages": stages[:2]}, url)


@pytest.mark.usefixtures("here")
def test_unknown_column_of_the_pool_is_refused(tmp_path: Path, indexed: Path, vl3syn: Vl3syn, tiny_clip: Path) -> None:
    url = Path(shutil.copytree(indexed, tmp_path / "run"))
    before = (url / "recipe.yaml").read_bytes()
    arguments = ("filter", "similarity", "--run", url, "--encoder", tiny_clip, "--texts")
    refused = vl3syn(*arguments, "pool.title,pool.caption")
    assert refused.returncode == 1
    said = "clip_text: the pool has no column 'caption', only alt_text, image, size, title"
    assert refused.stderr.splitlines()[-1].endswith(said)
    assert (url / "recipe.yaml").read_bytes() == before, "a second try must not find the texts of the first"
    assert vl3syn(*arguments, "pool.title").returncode == 0


@pytest.mark.usefixtures("here")
def test_unknown_column_is_refused_after_indexing_too(tmp_path: Path, pool: Path, tiny_clip: Path) -> None:
    stage = {"stage": "clip_text", "encoder": str(tiny_clip), "texts": ["pool.caption"]}
    with pytest.raises(ValueError, match="the pool has no column 'caption', only alt_text, image, size, title"):
        run({"name": "t", "pool": {"parquet": str(pool)}, "stages": [stage]}, tmp_path / "run")


def test_empty_name_between_commas_is_explained(tmp_path: Path, indexed: Path, vl3syn: Vl3syn, tiny_clip: Path) -> None:
    refused = vl3syn("filter", "similarity", "--run", indexed, "--encoder", tiny_clip, "--texts", "alt_text, ,")
    assert refused.returncode == 1
    assert "one of the names is empty: write them as in alt_text,short_caption" in refused.stderr
