"""A stage that stands twice in a recipe: filtered by alt text, captioned, and filtered by the new caption."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from manifests import funnel, open_run
from tests.chat_server import ChatServer, chat_server
from tests.runs import run, run_here

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]

ALTS = {
    "coffee.png": "an espresso in a cup",
    "chelsea.png": "a tabby cat",
    "rocket.jpg": "a missile at its launch",
    "motorcycle_left.png": "a cup of coffee",
    "page.png": None,
}
SAYS = {"message": {"role": "assistant", "content": "A cup of espresso stands on a table."}}  # of every image


def recipe(pool: Path, url: str, **as_: str) -> dict[str, Any]:
    """The recipe; `as_` renames steps."""
    engine = {"kind": "server", "url": url}
    stages = [
        {"stage": "conse"},
        {"stage": "conse_text", "as": "alt_texts", "texts": ["alt_text"]},
        {"stage": "similarity", "as": "alt_filter", "texts": ["alt_text"], "keep": {"min": 0.3}},
        {"stage": "short_caption", "as": "captions", "model": "m", "prompts": ["What is it?"], "engine": engine},
        {"stage": "conse_text", "texts": ["short_caption"]},
        {"stage": "similarity", "texts": ["short_caption"], "keep": {"min": 0.3}},
    ]
    renamed = [stage | {"as": as_.get(stage.get("as", stage["stage"]), stage.get("as"))} for stage in stages]
    named = [{key: value for key, value in stage.items() if value is not None} for stage in renamed]
    return {"name": "t", "pool": {"parquet": str(pool), "id": "id"}, "stages": named, "publish": {}}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [(files("skimage") / "data" / name).read_bytes() for name in ALTS]
    file = tmp_path_factory.mktemp("pool") / "a.parquet"
    columns = {"id": [*range(101, 107)], "image": [*images, b"torn"], "alt_text": [*ALTS.values(), "torn"]}
    pq.write_table(pa.table(columns), file)
    return file


@pytest.fixture(scope="module")
def done(engine: str, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ChatServer]:
    """The finished run, and the server of its captions, which is gone."""
    url = tmp_path_factory.mktemp("done") / "run"
    with chat_server(choice=SAYS) as server:
        run_here(recipe(pool, server.url), url)
    return url, server


@pytest.fixture
def copied(tmp_path: Path, done: tuple[Path, ChatServer]) -> Path:
    return Path(shutil.copytree(done[0], tmp_path / "run"))


NAMES = ["index", "conse", "alt_texts", "alt_filter", "captions", "conse_text", "similarity"]


def test_wrong_captions_are_dropped_and_each_step_has_its_line(done: tuple[Path, ChatServer]) -> None:
    url, server = done
    opened = open_run(url)
    counted = funnel(opened)
    assert [stage.stage for stage in counted.stages] == NAMES
    reasons = {stage.stage: stage.reasons for stage in counted.stages if stage.reasons}
    assert reasons == {
        "index": {"not an image": 1},
        "alt_filter": {"alt_similarity < 0.3": 1, "alt_similarity is missing": 1},
        "similarity": {"short_caption_similarity < 0.3": 2},
    }
    assert counted.rows == 6 == counted.survivors + sum(s.dropped + s.errors + s.pending for s in counted.stages)
    rows = {row["id"]: row for row in opened.manifest().collect().to_dicts()}
    ends = {id_: (row["status"], row["drop_stage"]) for id_, row in rows.items()}
    wrong, left = ("dropped", "similarity"), ("dropped", "alt_filter")
    assert ends == {101: ("kept", None), 102: wrong, 103: wrong, 104: left, 105: left, 106: ("error", "index")}
    assert rows[101]["short_caption_similarity"] > 0.5 > 0.1 > rows[102]["short_caption_similarity"]
    assert sum(server.requests.values()) == 3, "what the alt text drops is not captioned"
    assert opened.facts("alt_filter").collect()["id"].sort().to_list() == [101, 102, 103, 104, 105]
    assert opened.facts("similarity").collect()["id"].sort().to_list() == [101, 102, 103]


@pytest.mark.usefixtures("here")
def test_nothing_is_computed_again_also_under_new_names(
    pool: Path, copied: Path, vl3syn: Vl3syn, tmp_path: Path
) -> None:
    assert vl3syn("publish", "--run", copied).returncode == 0
    for names in ({}, {"alt_filter": "by_alt_text", "similarity": "by_caption", "captions": "said"}):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe(pool, "http://127.0.0.1:9/v1", **names)))
        again = vl3syn("run", tmp_path / "r.yaml", "--run", copied, "--json")
        assert again.returncode == 0, again.stderr
        report = json.loads(again.stdout)
        expected = [names.get(name, name) for name in NAMES]
        assert [(job["stage"], job["computed"]) for job in report["jobs"]] == [(name, 0) for name in expected]
        assert [stage["stage"] for stage in report["funnel"]["stages"]] == expected
        assert (report["published"]["rows"], report["published"]["written"]) == (1, 0)
        assert all(name in (copied / "shards/README.md").read_text() for name in expected)


def test_commands_address_a_step_by_its_name(copied: Path, vl3syn: Vl3syn) -> None:
    swept = vl3syn("sweep", copied, "alt_filter.min=0,0.72,0.9", "similarity.min=-1", "--json")
    assert [(p["kept"], p["to_compute"]) for p in json.loads(swept.stdout)] == [(3, 1), (2, 0), (0, 0)]
    (account,) = json.loads(vl3syn("explain", copied, "102", "--json").stdout)
    assert [stage["stage"] for stage in account["stages"]] == NAMES[1:]
    outcomes = {stage["stage"]: stage["outcome"] for stage in account["stages"]}
    assert (outcomes["alt_filter"], outcomes["similarity"]) == ("passed", "dropped")
    refused = vl3syn("retry", copied, "alt_filter")
    assert refused.stderr == f"vl3syn: {copied}: alt_filter has no failed rows\n"
    assert "has no stage 'short_caption'" in vl3syn("retry", copied, "short_caption").stderr


@pytest.mark.usefixtures("here")
def test_command_sets_the_rule_of_the_step_that_it_names(copied: Path, vl3syn: Vl3syn) -> None:
    loose = vl3syn("filter", "similarity", "--run", copied, "--as", "alt_filter", "--min", 0.72, "--json")
    report = json.loads(loose.stdout)
    jobs = [(job["stage"], job["computed"]) for job in report["jobs"]]
    assert jobs == [("conse", 0), ("alt_texts", 0), ("alt_filter", 0)]
    keep = {entry.get("as", entry["stage"]): entry["keep"] for entry in open_run(copied).recipe["stages"]}
    assert (keep["alt_filter"], keep["similarity"]) == (
        {"min_alt_similarity": 0.72},
        {"min_short_caption_similarity": 0.3},
    )
    assert [stage["dropped"] for stage in report["funnel"]["stages"]] == [0, 0, 0, 3, 0, 0, 1]
    added = vl3syn("filter", "similarity", "--run", copied, "--texts", "label,alt_text", "--as", "by_label")
    assert "writes alt_similarity, a column of the index or of an earlier stage" in added.stderr
    added = vl3syn("filter", "similarity", "--run", copied, "--texts", "label", "--as", "by_label", "--json")
    jobs = [(job["stage"], job["computed"]) for job in json.loads(added.stdout)["jobs"]]
    assert jobs == [("conse", 0), ("by_label_texts", 1), ("by_label", 1)]
    missing = vl3syn("filter", "quality", "--run", copied, "--as", "similarity")
    assert "has a step similarity already, of the stage similarity: give another name, with --as" in missing.stderr


@pytest.mark.usefixtures("here")
def test_trained_step_is_trained_once_under_its_name(tmp_path: Path, pool: Path) -> None:
    stages = [{"stage": "conse"}, {"stage": "clusters", "as": "themes", "clusters": 2}]
    written = {"pool": {"parquet": str(pool), "id": "id"}, "stages": stages}
    opened, jobs = run(written, tmp_path / "run")
    assert [(name, job.computed) for name, job in jobs.items()][2:] == [("themes (training)", 5), ("themes", 5)]
    entry = opened.recipe["stages"][1]
    assert (entry["as"], entry["table"].partition("-")[0], len(entry["fitted"])) == ("themes", "clusters", 16)
    _, jobs = run(written, tmp_path / "run")
    assert [(name, job.computed) for name, job in jobs.items()][2:] == [("themes", 0)]


@pytest.mark.usefixtures("here")
def test_failure_of_a_server_names_the_step(tmp_path: Path, pool: Path) -> None:
    with chat_server(faults=("400",), share=1) as server:
        written = recipe(pool, server.url)
        written["stages"][3]["resources"] = {"first_errors": 3}
        with pytest.raises(ValueError, match=r"^captions: the first 3 images in a row without an answer"):
            run(written, tmp_path / "run")
