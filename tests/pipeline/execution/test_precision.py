"""The float type of a stage's model is chosen once, when its table gets its first row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core import precision
from core.errors import UserError
from core.precision import Precision, cpu_dtype, precision_of
from filters.clip import Clip
from manifests import Run, open_run
from manifests.schemas import table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.inputs import Inputs
from pipeline.execution.part_writer import Store
from pipeline.execution.precision import in_one_precision
from pipeline.execution.stage_task import StageTask
from pipeline.recipe import parse_recipe
from tests.checkpoints import save_blip2
from tests.conftest import MakeImages
from tests.runs import run

FLAGS = {"bfloat16": "avx512_bf16", "float32": "avx2"}


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to write: what this machine says of its CPU."""
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def recipe(pool: Path, encoder: Path, **settings: Any) -> dict[str, Any]:
    return {"pool": {"images": str(pool)}, "stages": [{"stage": "clip", "encoder": str(encoder), **settings}]}


def stored(opened: Run) -> list[object]:
    """The float type of each part, oldest first."""
    return [provenance["dtype"] for provenance in opened.stages[0].table.provenances().values()]


@pytest.mark.parametrize("first", ["bfloat16", "float32"])
def test_auto_keeps_the_float_type_of_the_first_row(
    first: str, tmp_path: Path, make_images: MakeImages, tiny_clip: Path, cpu: Path, here: None
) -> None:
    pool, url = make_images(tmp_path / "pool", 2), tmp_path / "run"
    cpu.write_text(f"flags : {FLAGS[first]}\n")
    run(recipe(pool, tiny_clip), url)
    (other,) = FLAGS.keys() - {first}
    cpu.write_text(f"flags : {FLAGS[other]}\n")
    make_images(pool, 2, start=2)
    opened, jobs = run(recipe(pool, tiny_clip), url)
    assert (jobs["clip"].computed, stored(opened)) == (2, [first, first])


def test_float16_of_an_old_gpu_is_kept(tmp_path: Path, make_images: MakeImages, tiny_clip: Path, here: None) -> None:
    pool, url = make_images(tmp_path / "pool", 2), tmp_path / "run"
    run(recipe(pool, tiny_clip, precision="float16"), url)
    make_images(pool, 2, start=2)
    opened, _ = run(recipe(pool, tiny_clip), url)
    assert stored(opened) == ["float16", "float16"]


def test_float16_that_became_float32_goes_on(tmp_path: Path, make_images: MakeImages, here: None) -> None:
    """T5 exceeds float16: the same recipe must not contradict what it stored itself."""
    model = save_blip2(tmp_path / "t5", "t5")
    pool, url = make_images(tmp_path / "pool", 2), tmp_path / "run"
    stage = {"stage": "coarse_caption", "model": str(model), "max_new_tokens": 2, "precision": "float16"}
    for total in (2, 3):
        make_images(pool, total - 2, start=2)
        opened, jobs = run({"pool": {"images": str(pool)}, "stages": [stage]}, url)
        assert jobs["coarse_caption"].stored + jobs["coarse_caption"].computed == total
    assert stored(opened) == ["float32", "float32"]


def test_setting_that_contradicts_the_stored_one_is_refused(
    tmp_path: Path, make_images: MakeImages, tiny_clip: Path, here: None
) -> None:
    pool, url = make_images(tmp_path / "pool", 2), tmp_path / "run"
    run(recipe(pool, tiny_clip, precision="float32"), url)
    for new in (0, 1):
        make_images(pool, new, start=2)
        with pytest.raises(UserError) as refused:
            run(recipe(pool, tiny_clip, precision="bfloat16"), url)
        assert str(refused.value) == (
            "clip: what is stored was computed in float32, not in bfloat16: set `precision: auto` to go on in float32, "
            "or take another run directory to compute all rows in bfloat16"
        )
    opened = open_run(str(url))
    assert stored(opened) == ["float32"]
    assert opened.recipe["stages"][0]["precision"] == "float32", "the card of a publication says so"


def test_worker_in_another_float_type_is_refused(tmp_path: Path, tiny_clip: Path) -> None:
    """Such as that of another job, which began at the same time on another machine."""

    def task(wanted: Precision) -> StageTask:
        stage = Clip(encoder=str(tiny_clip), precision=wanted)
        table = Table(Folder.at(tmp_path), table_schema(stage.writes))
        return StageTask(
            name="clip", stage=stage, inputs=Inputs(), batch_size=1, store=Store(table, table.next_writer(), {})
        )

    first, _ = task("float32").loaded()
    first.store.table.append(first.store.table.schema.empty_table(), first.store.writer, first.store.provenance)
    table = first.store.table
    table.append(table.schema.empty_table(), table.next_writer(), {"stage": "clip"})  # of rows that failed, without it
    with pytest.raises(UserError, match="with float type float32, not bfloat16; run it where"):
        task("bfloat16").loaded()
    task("float32").loaded()


def test_bug_in_the_question_to_a_worker_is_shown(
    tmp_path: Path, make_images: MakeImages, tiny_clip: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def broken(gpu: bool) -> str:
        raise RuntimeError("no such flag")

    (step,) = parse_recipe(recipe(make_images(tmp_path / "pool", 1), tiny_clip), "test").steps
    table = Table(Folder.at(tmp_path / "table"), table_schema(step.stage.writes))
    nodes = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: nodes * 2)
    monkeypatch.setattr("pipeline.execution.precision.fastest", broken)
    with pytest.raises(RuntimeError, match="no such flag"):
        in_one_precision(step, table, 1, local=None)


def test_workers_of_several_machines_are_asked(
    tmp_path: Path, make_images: MakeImages, tiny_clip: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    of_workers = cpu_dtype()
    (other,) = FLAGS.keys() - {of_workers}
    (tmp_path / "cpuinfo").write_text(f"flags : {FLAGS[other]}\n")
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
    (step,) = parse_recipe(recipe(make_images(tmp_path / "pool", 1), tiny_clip), "test").steps
    table = Table(Folder.at(tmp_path / "table"), table_schema(step.stage.writes))
    assert precision_of(in_one_precision(step, table, 1, local=None).stage) == other, "one machine, which is this"
    nodes = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: nodes * 2)
    assert precision_of(in_one_precision(step, table, 1, local=None).stage) == of_workers
