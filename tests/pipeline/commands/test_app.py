"""The command line as a person meets it: output, exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, vl3syn: Call) -> Path:
    """A run over 30 images, one of them an error page, made by the command itself."""
    import io

    from PIL import Image

    folder = tmp_path_factory.mktemp("cli")
    (folder / "pool").mkdir()
    for number in range(29):
        data = io.BytesIO()
        Image.new("RGB", (40 + 4 * number, 40)).save(data, "PNG")
        (folder / "pool" / f"{number:02d}.png").write_bytes(data.getvalue())
    (folder / "pool" / "page.jpg").write_text("<html>404")
    (folder / "pool" / "notes.txt").write_text("no image")
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"pool: {{images: {folder}/pool}}\nstages: [{{stage: aspect_ratio, keep: {{max: 2}}}}]\n")
    done = vl3syn("run", recipe, "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    assert "30 rows, 11 survive" in done.stdout
    assert "passed over files that are no images by their ending: .txt 1" in done.stderr
    assert "images/s" in done.stderr
    return folder


def test_funnel_shows_reasons_and_adds_up(finished: Path, vl3syn: Call) -> None:
    printed = json.loads(vl3syn("funnel", finished / "run", "--json").stdout)
    assert (printed["rows"], printed["survivors"]) == (30, 11)
    assert printed["stages"][0] == {
        "stage": "index", "seen": 30, "kept": 29, "dropped": 0, "errors": 1, "pending": 0,
        "reasons": {"not an image": 1},
    }  # fmt: skip
    assert printed["stages"][1]["reasons"] == {"aspect_ratio > 2": 18}
    table = vl3syn("funnel", finished / "run").stdout
    assert "18 aspect_ratio > 2" in table


def test_second_run_does_not_even_import_ray(finished: Path) -> None:
    program = "import sys; from pipeline.commands.app import app; app(standalone_mode=False)"
    program += "; print('ray' in sys.modules)"
    command = [sys.executable, "-c", program, "run", finished / "recipe.yaml", "--run", finished / "run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed, _, imported = done.stdout.strip().rpartition("\n")
    assert [j["computed"] for j in json.loads(printed)["jobs"]] == [0, 0]
    assert "nothing to compute" in done.stderr
    assert imported == "False"


def test_sweep_counts_jointly_without_changing_the_run(finished: Path, vl3syn: Call) -> None:
    before = (finished / "run" / "recipe.yaml").read_text()
    axes = ("aspect_ratio.max=1.5,2,3", "aspect_ratio.min_side=40:41:2")
    points = json.loads(vl3syn("sweep", finished / "run", *axes, "--json").stdout)
    kept = {(p["aspect_ratio.max"], p["aspect_ratio.min_side"]): p["kept"] for p in points}
    assert kept == {(1.5, 40): 6, (1.5, 41): 0, (2, 40): 11, (2, 41): 0, (3, 40): 21, (3, 41): 0}
    assert (finished / "run" / "recipe.yaml").read_text() == before


def test_sweep_without_axes_shows_quantiles_of_scores(finished: Path, vl3syn: Call) -> None:
    rows = json.loads(vl3syn("sweep", finished / "run", "--json").stdout)
    ratio = next(r for r in rows if r["column"] == "aspect_ratio")
    assert (ratio["min"], ratio["p50"], ratio["max"], ratio["rows"]) == (
        1.0,
        pytest.approx(2.4),
        pytest.approx(3.8),
        29,
    )


def test_explain_shows_the_reason(finished: Path, vl3syn: Call) -> None:
    (account,) = json.loads(vl3syn("explain", finished / "run", "28.png", "--json").stdout)
    assert (account["status"], account["drop_stage"]) == ("dropped", "aspect_ratio")
    assert account["drop_reason"] == "aspect_ratio 3.8 > 2"
    assert account["stages"][0]["facts"] == {"aspect_ratio": pytest.approx(3.8), "side": 40, "pixels": 152 * 40}
    assert account["stages"][0]["computed_by"]["stage"] == "aspect_ratio"
    by_id = vl3syn("explain", finished / "run", account["image"]["id"]).stdout
    assert "dropped: aspect_ratio 3.8 > 2 (at aspect_ratio)" in by_id
    (page,) = json.loads(vl3syn("explain", finished / "run", "page.jpg", "--json").stdout)
    assert (page["status"], page["drop_reason"]) == ("error", "not an image: HTML")
    assert page["stages"][0]["outcome"] == "not reached"


def test_recipe_edited_in_the_run_is_checked(finished: Path, tmp_path: Path, vl3syn: Call) -> None:
    import shutil

    run = shutil.copytree(finished / "run", tmp_path / "run")
    stored = (run / "recipe.yaml").read_text()
    for wrong, message in (
        ("keep: {mim_side: 30}", "unknown rule 'mim_side'; did you mean 'min_side'"),
        ("keep: {min_sid: 30}", "unknown rule 'min_sid'; did you mean 'min_side'"),
        ("keep: 5", "keep must be a mapping"),
        ("keep: {", "not YAML"),
    ):
        (run / "recipe.yaml").write_text(stored.replace("keep:\n    max_aspect_ratio: 2", wrong))
        done = vl3syn("funnel", run)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert message in done.stderr
    (run / "recipe.yaml").write_text(stored.replace("max_aspect_ratio: 2", "max: 3"))
    assert json.loads(vl3syn("funnel", run, "--json").stdout)["survivors"] == 21


def test_folder_with_only_a_recipe_is_not_taken_for_a_run(tmp_path: Path, finished: Path, vl3syn: Call) -> None:
    mine = f"# mine\npool: {{images: {finished / 'pool'}}}\n"
    (tmp_path / "recipe.yaml").write_text(mine)
    done = vl3syn("run", tmp_path / "recipe.yaml", "--run", tmp_path)
    assert done.returncode == 1
    assert "is a recipe, but not of a run" in done.stderr
    assert (tmp_path / "recipe.yaml").read_text() == mine


def test_text_of_the_pool_is_printed_without_terminal_codes(tmp_path: Path, vl3syn: Call) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (9, 9)).save(data, "PNG")
    pq.write_table(
        pa.table({"png": [data.getvalue()], "caption": ["sale [/b] [red] \x1b[31m now"]}), tmp_path / "a.parquet"
    )
    assert vl3syn("index", "--parquet", tmp_path / "a.parquet", "--run", tmp_path / "run").returncode == 0
    done = vl3syn("explain", tmp_path / "run", "0")
    assert "sale [/b] [red] \ufffd[31m now" in done.stdout


def test_list_of_urls_is_indexed_with_its_columns(tmp_path: Path, vl3syn: Call) -> None:
    import gzip

    from manifests import open_run

    data = b"nr;link;titel\n5;http://x/5.jpg;f\xfcnf\n6;http://x/6.jpg\n"
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(data))
    columns = ("--url-column", "link", "--caption-column", "titel", "--id-column", "nr")
    done = vl3syn("index", tmp_path / "list.csv.gz", *columns, "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "pool: no sizes in list.csv.gz: it has no columns width and height; they are unknown until" in done.stderr
    assert "pool: alt text from the column 'titel'" in done.stderr
    run = open_run(str(tmp_path / "run"))
    assert run.recipe["pool"] == {"urls": f"{tmp_path}/list.csv.gz", "id": "nr", "alt_text": "titel", "url": "link"}
    rows = run.index.scan(["id", "url", "alt_text", "error"]).collect().sort("url", nulls_last=True)
    assert rows[0].rows() == [(5, "http://x/5.jpg", "fünf", None)]
    assert rows["error"][1] == "bad row: line 3: 2 cells, and the header has 3"


@pytest.mark.slow
def test_filter_command_adds_facts_then_a_rule(finished: Path, vl3syn: Call, tmp_path: Path) -> None:
    """index, then facts without a rule, then a rule: the threshold moves without computing."""
    run = tmp_path / "run"
    done = json.loads(vl3syn("index", "--images", finished / "pool", "--run", run, "--json").stdout)
    assert (done["jobs"][0]["computed"], done["funnel"]["survivors"]) == (30, 29)
    done = json.loads(vl3syn("filter", "aspect-ratio", "--run", run, "--json").stdout)
    assert (done["jobs"][0]["computed"], done["funnel"]["survivors"]) == (29, 29)
    done = json.loads(vl3syn("filter", "aspect-ratio", "--run", run, "--max", "2", "--json").stdout)
    assert (done["jobs"][0]["computed"], done["funnel"]["survivors"]) == (0, 11)
    done = json.loads(vl3syn("filter", "aspect-ratio", "--run", run, "--min-side", "41", "--json").stdout)
    assert (done["jobs"][0]["computed"], done["funnel"]["survivors"]) == (0, 0)
    assert done["funnel"]["stages"][1]["reasons"] == {"aspect_ratio > 2": 18, "side < 41": 11}
    done = json.loads(vl3syn("index", "--run", run, "--json").stdout)
    assert done["jobs"][0]["computed"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "none.yaml", "--run", "{tmp}/x"], 1, "none.yaml: no such recipe"),
        (["run", "{tmp}", "--run", "{tmp}/x"], 1, "no such recipe"),
        (["index", "--images", "{pool}", "--run", "/proc/none/run"], 1, "No such file or directory"),
        (["index", "--images", "{pool}", "--run", "s3://bucket/run#1"], 1, "not a URL of a folder"),
        (["index", "--tars", "{tmp}/[z-a].tar", "--run", "{tmp}/x"], 1, "nothing to index"),
        (["sweep", "{run}", "aspect_ratio.max=2", "aspect_ratio.max_aspect_ratio=3"], 1, "are the same rule"),
        (["sweep", "{run}", "aspect_ratio.max=2", "aspect_ratio.max=3"], 1, "given twice"),
        (["explain", "{run}", "\u00b2"], 1, "has no image called"),
        (["funnel", "none"], 1, "none is not a run: it has no recipe.yaml"),
        (["funnel", "s3://key:secret@bucket/run"], 1, "keep credentials in the environment"),
        (["explain", "{run}", "none.png"], 1, "has no image called 'none.png'"),
        (["sweep", "{run}", "aspect_ratio.max"], 1, "give thresholds as STAGE.RULE=1,2,3"),
        (["sweep", "{run}", "aspect_ratio.max=0.5"], 1, "aspect_ratio runs from 1 to inf"),
        (["sweep", "{run}", "aesthetic.min=5"], 1, "an axis is STAGE.RULE"),
        (["sweep", "{run}", "aspect_ratio.mix=5"], 1, "unknown rule 'mix'"),
        (["filter", "aspect-ratio", "--run", "{run}", "--max", "0.2"], 1, "aspect_ratio runs from 1 to inf"),
        (["index", "--images", "none", "--run", "{tmp}/x"], 1, "none: No such file or directory"),
        (["index", "--images", "a", "--tars", "b", "--run", "{tmp}/x"], 1, "exactly one of images, tars"),
        (["index", "--run", "{tmp}/x"], 1, "is not a run"),
        (["index", "a.parquet", "--run", "{tmp}/x"], 1, "a.parquet has nothing to index; check the path"),
        (["index", "a.csv", "--urls", "b.csv", "--run", "{tmp}/x"], 1, "give a.csv or --urls, not both"),
        (["index", "{tmp}/a.csv", "--run", "{tmp}/x"], 1, "a.csv has nothing to index; check the path"),
        (["run"], 2, "Missing argument"),
        (["filter", "aspect-ratio"], 2, "Missing option"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_user_error_is_one_line_on_stderr(
    arguments: list[str], code: int, message: str, finished: Path, tmp_path: Path, vl3syn: Call
) -> None:
    done = vl3syn(*(a.format(run=finished / "run", pool=finished / "pool", tmp=tmp_path) for a in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    if code == 1:
        assert done.stderr.startswith("vl3syn: ")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists(), "a command that was refused leaves nothing"


def test_version_option_prints_the_version(vl3syn: Call) -> None:
    from importlib.metadata import version

    assert vl3syn("--version").stdout == f"vl3syn {version('vl3syn')}\n"


def test_help_imports_nothing_heavy() -> None:
    """What makes `--help` quick, which benchmarks/command_line.py times."""
    program = "import sys, pipeline.commands.app; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for heavy in ("ray", "polars", "pyarrow", "numpy", "PIL", "torch", "pydantic"):
        assert f"'{heavy}'" not in loaded


@pytest.mark.parametrize(
    "resources",
    [
        {"num_gpus": 64},
        pytest.param({"num_cpus": 4096}, marks=pytest.mark.thorough),
        pytest.param({"num_gpus": 64, "actors": 2}, marks=pytest.mark.thorough),
    ],
)
def test_more_than_this_machine_has_is_refused_before_the_index(
    resources: dict[str, int], tmp_path: Path, make_images: Callable[..., Path], vl3syn_process: Call
) -> None:
    pool, recipe = make_images(tmp_path / "pool", 3), tmp_path / "recipe.yaml"
    stage = {"stage": "aspect_ratio", "resources": resources}
    recipe.write_text(json.dumps({"pool": {"images": str(pool)}, "stages": [stage]}))
    done = vl3syn_process("run", recipe, "--run", tmp_path / "run")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "aspect_ratio: an actor needs" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_doctor_reports_two_faiss_and_an_unrunnable_recipe(tmp_path: Path, vl3syn: Call) -> None:
    bad, poor, training = (tmp_path / f"{name}.yaml" for name in ("bad", "poor", "training"))
    bad.write_text("pool: {imags: x}")
    poor.write_text("pool: {images: /nowhere}\nstages: [{stage: aspect_ratio, resources: {num_gpus: 64}}]")
    training.write_text(
        "model: {preset: tiny}\nsources: {qa: {annotations: /nowhere.jsonl}}\n"
        "stages: [{name: a, learning_rates: {'': 1.0e-3}, mixture: {qa: 1}, steps: 1}]"
    )
    for name in ("faiss_cpu", "faiss_gpu"):
        (tmp_path / f"{name}-1.15.1.dist-info").mkdir()
        (tmp_path / f"{name}-1.15.1.dist-info" / "METADATA").write_text(
            f"Name: {name.replace('_', '-')}\nVersion: 1.15.1\n"
        )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pipeline", "doctor", str(bad), str(poor), str(training), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    findings = {f["what"]: f for f in json.loads(done.stdout)}
    assert findings["python"]["state"] == findings["engine"]["state"] == "ok"
    assert findings["faiss"]["state"] == "broken"
    assert "overwrite each other" in findings["faiss"]["found"]
    assert "did you mean 'images'" in findings[f"recipe {bad}"]["found"]
    assert "aspect_ratio: an actor needs 1 CPU and 64 GPU on one node" in findings[f"recipe {poor}"]["found"]
    assert "/nowhere" in findings[f"recipe {poor}"]["found"]
    assert findings[f"recipe {training}"]["state"] == "missing"
    assert "/nowhere.jsonl: cannot be read" in findings[f"recipe {training}"]["found"]
