"""What version 7891fd6 has written opens, resumes and publishes, and no stored fact is computed again.

`make_7891fd6.py` made the files; ROOT in them stands for the folder that they lie in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from polars.testing import assert_frame_equal

from manifests import open_run
from manifests.rules import parse_rules
from manifests.schemas import column
from tests.chat_server import chat_server
from tests.compatibility.make_7891fd6 import RECIPE, picture

FILES = Path(__file__).parent / "written_by_7891fd6"
STAGES = [stage["stage"] for stage in RECIPE["stages"]]
Vl3syn = Callable[..., CompletedProcess[str]]


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, which is the working directory too."""
    folder = tmp_path / "old"
    shutil.copytree(FILES, folder)
    for name in ("run/recipe.yaml", "training/recipe.yaml", "training/1-first/model/vl3syn_training.json"):
        (folder / name).write_text((folder / name).read_text().replace("ROOT", str(folder)))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(folder)
    return folder


def run(vl3syn: Vl3syn, folder: Path, server: str = "http://127.0.0.1:9/v1") -> dict[str, Any]:
    """`vl3syn run` with the recipe of the run, whose captions come from `server`: what `--json` prints."""
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"pool": {"images": str(folder / "pool")}}
    for stage in recipe["stages"][-2:]:
        stage["engine"]["url"] = server
    (folder / "again.yaml").write_text(yaml.safe_dump(recipe))
    done = vl3syn("run", "again.yaml", "--run", "run", "--json")
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_manifest_has_the_recorded_rows(old: Path) -> None:
    before = pl.read_json(old / "manifest.json", infer_schema_length=None).sort("id")
    now = open_run("run").manifest().collect().sort("id")
    assert_frame_equal(now.select(before.columns), before, check_dtypes=False, rel_tol=1e-6)


def test_second_run_computes_nothing_and_keeps_the_publication(old: Path, vl3syn: Vl3syn) -> None:
    before = {part: contents(old / "run" / part) for part in ("stages", "index", "shards/data", "shards/.publication")}
    printed = run(vl3syn, old)
    assert {job["stage"]: job["computed"] for job in printed["jobs"]} == dict.fromkeys(["index", *STAGES], 0)
    assert (printed["published"]["rows"], printed["published"]["written"]) == (10, 0)
    after = {part: contents(old / "run" / part) for part in before}
    assert {part: {name: files[name] for name in before[part]} for part, files in after.items()} == before
    new = {part: files.keys() - before[part].keys() for part, files in after.items()}
    assert new["shards/.publication"] == {"sha256.json"}  # for croissant.json
    parts = new["stages"]
    assert [pq.read_metadata(old / "run/stages" / name).num_rows for name in parts] == [0] * len(parts)  # columns alone
    assert not new["index"] | new["shards/data"]


@pytest.mark.usefixtures("here")
def test_grown_pool_computes_only_the_new_image_and_adds_a_shard(old: Path, vl3syn: Vl3syn) -> None:
    picture(10).save(old / "pool/new.png")
    shards = contents(old / "run/shards/data")
    with chat_server() as server:
        printed = run(vl3syn, old, server.url)
        requests = sum(server.requests.values())
    computed = {job["stage"]: job["computed"] for job in printed["jobs"]}
    assert computed.pop("duplicates") <= 11  # the group that the image came into is compared again
    assert set(computed.values()) == {1}
    assert requests == 2
    assert (printed["published"]["rows"], printed["published"]["written"]) == (11, 1)
    after = contents(old / "run/shards/data")
    assert {name: after[name] for name in shards} == shards
    names = [pq.read_schema(old / "run/shards/data" / name).names for name in sorted(after)]
    assert names[0] == names[1]
    assert set(names[0]) <= set(names[2])


@pytest.mark.parametrize(
    ("order", "kept"),
    [
        ("random", [100, 101, 105, 114, 116, 118, 127]),
        ("closest", [100, 105, 109, 113, 118, 122, 126]),
        ("farthest", [103, 104, 108, 112, 117, 121, 125]),
        ("highest_distance", [103, 104, 108, 112, 117, 121, 125]),
        ("lowest_distance", [100, 105, 109, 113, 118, 122, 126]),
    ],
)
def test_stored_order_chooses_the_recorded_rows(order: str, kept: list[int]) -> None:
    rows = pl.DataFrame(
        [(100 + n, n % 3, n * 7 % 30 / 30) for n in range(30)], schema=["id", "cluster", "distance"], orient="row"
    )
    writes = pa.schema([column("cluster", pa.int32(), "", nominal=True), column("distance", pa.float32(), "")])
    (rule,) = parse_rules({"total_cluster": 7, "order": order, "seed": 5}, writes, "recipe.yaml")
    assert rows.filter(rule.passes(rows))["id"].to_list() == kept


def test_killed_training_resumes_where_it_stopped(old: Path, vl3syn: Vl3syn) -> None:
    done = vl3syn("train", "train.yaml", "--run", "training")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in (old / "training/metrics.jsonl").read_text().splitlines()]
    second = [line["step"] for line in steps if line["kind"] == "step" and line["stage"] == "second"]
    assert second == list(range(1, 13))
    printed = vl3syn("chat", "training/2-second/model", "--image", "pool/1.png", "What is it?", "--max-new-tokens", 3)
    assert printed.returncode == 0, printed.stderr
