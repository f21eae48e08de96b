"""A run of clips as records: all of them, the same however they came to be, and never changed later."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.errors import UserError
from manifests import Run, open_run
from manifests.record_files import read_records
from manifests.removals import Removals
from pipeline.pools.registry import POOLS
from pipeline.publishing.clips.media import ClipMedia
from pipeline.publishing.clips.records import NOTHING
from tests.pipeline.publishing.clips.clip_runs import (
    CUTS,
    STAGES,
    Films,
    PiecesInTars,
    clip_run,
    clips_pool,
    facts,
    pool,
    publish,
)

pytestmark = [pytest.mark.usefixtures("clips_pool", "here"), pytest.mark.timeout(120)]
__all__ = ["clips_pool"]

SUBSETS = ["captions", "questions", "grounding", "stream"]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return pool(tmp_path / "pool")


@pytest.fixture
def run(tmp_path: Path, films: Path) -> Run:
    return clip_run(tmp_path / "run", films, facts())


def files(out: Path) -> dict[str, str]:
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in out.rglob("*") if f.is_file()}


def shards(out: Path) -> dict[str, str]:
    """What must never change: records and films."""
    return {name: digest for name, digest in files(out).items() if name.split("/")[0] in (*SUBSETS, "media")}


def clips_in(out: Path, subset: str) -> list[int]:
    return sorted({int(record.id.split("/")[1]) for record in read_records(out / subset)})


@pytest.mark.parametrize("films_are", ["reference", "copy", "encode"])
def test_all_kept_clips_are_in_records(run: Run, tmp_path: Path, films_are: str) -> None:
    done = publish(run, tmp_path / "out", films=films_are)
    ids = sorted(run.index.scan(["id"]).collect()["id"])
    for subset in SUBSETS:
        assert clips_in(tmp_path / "out", subset) == ids
    assert (done.rows, done.shards, done.written, done.left_out, done.stale) == (5, 12, 12, {}, 0)
    assert done.records == {"captions": 15, "questions": 10, "grounding": 10, "stream": 5}
    assert done.rejected == {"questions: answered without the film": 5}
    ids_of_records = [record.id for subset in SUBSETS for record in read_records(tmp_path / "out" / subset)]
    assert len(set(ids_of_records)) == 40
    assert len(list((tmp_path / "out").glob("media/*/*.mp4"))) == (0 if films_are == "reference" else 5)


def test_second_publication_changes_no_byte(run: Run, tmp_path: Path) -> None:
    publish(run, tmp_path / "out", films="copy")
    before = files(tmp_path / "out")
    done = publish(run, tmp_path / "out", films="copy")
    assert (done.written, done.job) == (0, None)
    assert files(tmp_path / "out") == before
    publish(run, tmp_path / "other", films="copy")
    assert shards(tmp_path / "other") == shards(tmp_path / "out")


@pytest.mark.parametrize("films_are", ["copy", "encode"])
def test_interrupted_publication_ends_with_the_same_bytes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, films_are: str
) -> None:
    publish(run, tmp_path / "whole", films=films_are)
    of_clip, calls = ClipMedia.medium, []

    def medium(self: ClipMedia, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return of_clip(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(ClipMedia, "medium", medium)
        with pytest.raises(KeyboardInterrupt):
            publish(run, tmp_path / "out", films=films_are)
    left = shards(tmp_path / "out")
    assert 0 < len(left) < 17
    assert publish(run, tmp_path / "out", films=films_are).rows == 5
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")
    assert left.items() <= shards(tmp_path / "out").items()


@pytest.mark.parametrize("films_are", ["copy", "encode"])
def test_lost_files_are_written_again(run: Run, tmp_path: Path, films_are: str) -> None:
    out = tmp_path / "out"
    publish(run, out, films=films_are)
    before = shards(out)
    (out / "grounding/records-00001.parquet").unlink()
    next(iter(sorted(out.glob("media/00000/*.mp4")))).unlink()
    assert publish(run, out, films=films_are).written == 1
    assert shards(out) == before


def test_grown_pool_gives_new_shards(run: Run, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(run, out, films="copy")
    before = shards(out)
    cuts = {**CUTS, "c.mp4": [(1.0, 4.0), (4.0, 8.0)]}
    pool(films, {"c.mp4": cuts["c.mp4"]})
    pool_of_all = json.dumps(cuts)
    (films / "pieces.json").write_text(pool_of_all)
    grown = clip_run(tmp_path / "grown", films, facts(cuts))
    shutil.copytree(tmp_path / "grown", tmp_path / "run", dirs_exist_ok=True)
    done = publish(grown, out, films="copy")
    assert (done.rows, done.written) == (7, 4)
    assert before.items() <= shards(out).items()
    assert len(shards(out)) == len(before) + 4 + 2
    assert [len(clips_in(out, subset)) for subset in SUBSETS] == [7] * 4


def test_subsets_are_those_that_facts_allow(films: Path, tmp_path: Path) -> None:
    stored = {name: facts()[name] for name in ("frames", "dense_caption", "summary")}
    run = clip_run(tmp_path / "run", films, stored, stages=list(STAGES[:3]))
    assert list(publish(run, tmp_path / "all").records) == ["captions", "grounding", "stream"]
    some = publish(run, tmp_path / "some", subsets=("stream", "captions"))
    assert list(some.records) == ["captions", "stream"]
    of_all = {record.id: record for record in read_records(tmp_path / "all/stream")}
    assert {record.id: record for record in read_records(tmp_path / "some/stream")} == of_all
    with pytest.raises(UserError, match=r"the subset questions needs questions, which no stage of the run writes"):
        publish(run, tmp_path / "none", subsets=("questions",))
    bare = clip_run(tmp_path / "bare", films, {"frames": stored["frames"]}, stages=list(STAGES[:1]))
    with pytest.raises(UserError, match=r"nothing to publish: no stage of the run writes one of dense_caption, "):
        publish(bare, tmp_path / "none")


def test_facts_come_from_the_tables_that_the_run_names(films: Path, tmp_path: Path) -> None:
    run = clip_run(tmp_path / "run", films, facts())
    written, table = (tmp_path / "run/recipe.yaml").read_text(), run.recipe["stages"][3]["table"]
    (tmp_path / "run/stages" / table).rename(tmp_path / "run/stages/questions-00000000")  # of an earlier version
    (tmp_path / "run/recipe.yaml").write_text(written.replace(table, "questions-00000000"))
    done = publish(open_run(str(tmp_path / "run")), tmp_path / "out")
    assert done.records == publish(clip_run(tmp_path / "new", films, facts()), tmp_path / "other").records


def test_kept_clips_are_published_or_left_out(films: Path, tmp_path: Path) -> None:
    stored = facts()
    stored["dense_caption"]["a.mp4#0"] |= {"dense_caption": None, "events": []}
    stored["summary"]["a.mp4#0"] = {"summary": " "}
    stored["questions"]["a.mp4#0"] = {"questions": []}
    stored["dense_caption"]["a.mp4#1"] |= {"event_count": 0}
    cut_off = (films / "b.mp4").read_bytes()
    (films / "b.mp4").write_bytes(cut_off[: len(cut_off) // 2])
    stages = [dict(stage) for stage in STAGES]
    stages[1]["keep"] = {"min_event_count": 1}
    run = clip_run(tmp_path / "run", films, stored, stages=stages)
    done = publish(run, tmp_path / "out", films="copy")
    keys: Mapping[str, str] = dict(run.index.scan(["id", "key"]).collect().select(pl.col("id").cast(str), "key").rows())
    reasons = {keys[id_]: why for id_, why in done.left_out.items()}
    assert set(reasons) == {"a.mp4#0", "b.mp4#0", "b.mp4#1"}
    assert reasons["a.mp4#0"].startswith(NOTHING)
    assert "cannot be read as a video" in reasons["b.mp4#0"]
    kept = run.manifest().filter(pl.col("status") == "kept").collect().height
    assert (kept, done.rows) == (4, 1)
    assert len(list((tmp_path / "out").glob("media/*/*"))) == 1
    before = shards(tmp_path / "out")
    assert publish(run, tmp_path / "out", films="copy").left_out == done.left_out
    assert shards(tmp_path / "out") == before


def test_deleted_film_is_left_out_and_a_missing_pool_ends_it(run: Run, films: Path, tmp_path: Path) -> None:
    (films / "b.mp4").unlink()
    done = publish(run, tmp_path / "out")
    assert set(done.left_out.values()) == {"missing: the pool has deleted the film since it was indexed"}
    assert (len(done.left_out), done.rows) == (2, 3)
    films.rename(tmp_path / "unmounted")
    films.mkdir()
    with pytest.raises(UserError, match="the films are not there; bring them back, and run again"):
        publish(run, tmp_path / "other")


def test_shard_whose_films_have_changed_is_not_mended_wrongly(run: Run, films: Path, tmp_path: Path) -> None:
    publish(run, tmp_path / "out")
    (films / "b.mp4").unlink()
    for file in (tmp_path / "out/stream").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"films of shard \d are not what they were when it was written"):
        publish(run, tmp_path / "out")


def test_events_and_questions_that_are_none_are_counted(films: Path, tmp_path: Path) -> None:
    stored = facts()
    stored["dense_caption"]["a.mp4#0"]["events"] = [
        {"start": 0.5, "end": 0.52, "text": "Too short"},
        {"start": 5.0, "end": 9.0, "text": "Behind the end"},
        {"start": 0.5, "end": 1.5, "text": "Right"},
    ]
    choice = {"form": "choice", "question": "Which?", "options": ["A", "B"], "answer_index": 2, "aspect": "spatial"}
    stored["questions"]["a.mp4#0"]["questions"] = [choice, {"form": "open", "question": "What?", "answer": ""}]
    run = clip_run(tmp_path / "run", films, stored)
    done = publish(run, tmp_path / "out")
    assert done.rejected == {
        "events: a span shorter than 0.1 s": 1,
        "events: span outside of the film": 1,
        "questions: an answer outside of its options": 1,
        "questions: answered without the film": 4,
        "questions: empty answer": 1,
    }
    assert done.records == {"captions": 15, "questions": 8, "grounding": 9, "stream": 5}


def test_removed_clips_are_not_published(run: Run, tmp_path: Path) -> None:
    ids = sorted(run.index.scan(["id"]).collect()["id"])
    done = publish(run, tmp_path / "out", removed=Removals(ids=frozenset(ids[:2])))
    assert (done.rows, clips_in(tmp_path / "out", "stream")) == (3, ids[2:])
    publish(run, tmp_path / "whole")
    assert publish(run, tmp_path / "whole", removed=Removals(ids=frozenset(ids[:2]))).stale == 2
    with pytest.raises(UserError, match="nothing to publish: all 5 clips were removed on request"):
        publish(run, tmp_path / "none", removed=Removals(ids=frozenset(ids)))


def test_run_of_films_is_not_published(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = clip_run(tmp_path / "run", films, facts(), stages=[])
    monkeypatch.setitem(POOLS, "clips", Films)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"this is a run of films, not of clips: name the run of its clips"):
        publish(run, tmp_path / "out")


def test_films_in_tars_are_cut_but_not_referenced(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(run, tmp_path / "files", films="copy")
    monkeypatch.setitem(POOLS, "clips", PiecesInTars)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"is in a tar or a store, which a record cannot name: set films to copy"):
        publish(run, tmp_path / "refused")
    publish(run, tmp_path / "out", films="copy")
    assert shards(tmp_path / "out") == shards(tmp_path / "files")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({}, {"films": "copy"}, "was published with films reference, not copy"),
        ({}, {"subsets": ("stream",)}, r"was published with subsets \['captions'"),
        ({}, {"seed": 1}, "was published with seed 0, not 1"),
        ({"films": "copy"}, {"films": "copy", "media": "/tmp"}, "media is for films: reference"),
    ],
)
def test_other_settings_need_another_folder(
    run: Run, tmp_path: Path, first: dict[str, Any], second: dict[str, Any], reason: str
) -> None:
    publish(run, tmp_path / "out", **first)
    before = files(tmp_path / "out")
    with pytest.raises(UserError, match=reason):
        publish(run, tmp_path / "out", **second)
    assert files(tmp_path / "out") == before


def test_other_facts_need_another_folder(run: Run, films: Path, tmp_path: Path) -> None:
    publish(run, tmp_path / "out")
    other = clip_run(tmp_path / "other", films, {"summary": facts()["summary"]}, stages=[*STAGES[:3]])
    with pytest.raises(UserError, match=r"was published with subsets|has records of another recipe"):
        publish(other, tmp_path / "out")


def test_damaged_and_foreign_shards_are_refused(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(run, out)
    shard = out / "captions/records-00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    with pytest.raises(UserError, match="the shard is damaged"):
        publish(run, out)
    shutil.copy(out / "stream/records-00000.parquet", shard)
    with pytest.raises(UserError, match="records, and its account"):
        publish(run, out)
    shard.write_bytes(whole)
    shutil.copy(shard, out / "captions/records-00009.parquet")
    with pytest.raises(UserError, match=r"captions/records-00009.parquet is in no list"):
        publish(run, out)


def test_paths_are_relative_to_the_media_folder(run: Run, films: Path, tmp_path: Path) -> None:
    publish(run, tmp_path / "out", media=str(tmp_path))
    assert {record.media[0].path for record in read_records(tmp_path / "out/stream")} == {"pool/a.mp4", "pool/b.mp4"}
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError, match=r"lies outside of .*/elsewhere: set media to a folder above all films"):
        publish(run, tmp_path / "other", media=str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="no such folder"):
        publish(run, tmp_path / "third", media=str(tmp_path / "gone"))
