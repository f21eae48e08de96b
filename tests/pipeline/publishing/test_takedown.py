"""Takedowns: removed images are in no shard and never come back; whatever stays keeps its bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from manifests.parts import to_bytes
from manifests.removals import Removals, removals_in
from manifests.shard_copies import identities
from manifests.shards import shard_name, write_parquet
from manifests.storage import Folder
from manifests.tar_shards import write_tar
from pipeline.publishing.croissant import write_croissant
from pipeline.publishing.lists import LISTED
from pipeline.publishing.publication import Publication, stored_publication
from pipeline.publishing.removal_requests import parse_requests
from pipeline.publishing.takedown import Orders, TakenDown, adopt_removals, take_down
from pipeline.recipe_file import Publish
from tests.manifests.test_shard_copies import IDS, SCHEMA, group

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]
GONE, LEFT = (7, 41), [40, 42, 1 << 62, -3]


def published(out: Folder, format_: str = "parquet", subsets: tuple[str, ...] = ("data",)) -> Folder:
    """A publication of the images `IDS`, two a shard; 7 and 41 are not in one shard."""
    settings = Publish.model_validate({"rows_per_shard": 2, "format": format_})
    publication = Publication(out, format_, dict.fromkeys(subsets, ("short",)))
    publication.open(settings, {})
    numbers = [number // 2 for number in range(len(IDS))]
    lists, name = out.join(".publication"), "000001.parquet"
    lists.write(name, to_bytes(pa.table([IDS, numbers], schema=LISTED), name=name))
    write = write_tar if format_ == "webdataset" else write_parquet
    for subset in subsets:
        for number in range(3):
            rows = group(IDS[2 * number : 2 * number + 2])
            write(out, shard_name(subset, number, format_), SCHEMA.remove_metadata(), iter([rows]))
    return out


def remove(out: Folder, *lines: str, **how: Any) -> TakenDown:
    return take_down(Orders(parse_requests(lines, "list"), "list", **how), out, out.path)


def contents(out: Folder) -> dict[str, bytes]:
    return {file.path: out.read(out.relative(file.path)) for file in out.files(recursive=True)}


def ids_in(out: Folder) -> dict[str, list[int]]:
    """The images of each shard, by its path."""
    shards = stored_publication(out, out.path).existing()
    return {name: identities(out, file)["id"].to_list() for name, file in shards.items()}


def published_ids(out: Folder) -> list[int]:
    return sorted(id_ for ids in ids_in(out).values() for id_ in ids)


@pytest.mark.parametrize("format_", ["parquet", "webdataset"])
def test_removed_images_are_gone_and_other_bytes_are_the_same(tmp_path: Path, format_: str) -> None:
    out = published(Folder.at(tmp_path / "out"), format_, ("short", "detailed"))
    before, places = contents(out), ids_in(out)
    done = remove(out, "7\tasked by mail", "key:0.tar/41.png")
    assert (done.images, done.generation, len(done.shards)) == (2, 2, 4)
    assert ids_in(out) == {name: [id_ for id_ in ids if id_ not in GONE] for name, ids in places.items()}
    after = contents(out)
    changed = {out.relative(path) for path in after if after[path] != before.get(path)}
    assert changed == {*done.shards, ".publication/removed-000001.json"}
    assert not before.keys() - after.keys()
    log = json.loads(after[f"{out.path}/.publication/removed-000001.json"])
    assert (log["images"], log["finished"], sorted(log["ids"])) == (2, True, sorted(GONE))
    assert "mail" not in json.dumps(log)
    assert "41.png" not in json.dumps(log)


def test_what_a_killed_writer_left_aside_goes_too(tmp_path: Path) -> None:
    """A partial shard may hold the image, whether or not a whole shard does."""
    out = published(Folder.at(tmp_path / "out"), "parquet", ("short", "detailed"))
    aside = [out.join(subset).path + "/.aside-0123" for subset in ("short", "detailed")]
    for request in ("7", "sha256:" + "0" * 64):
        for path in aside:
            Path(path).write_bytes(b"the image")
        remove(out, request, missing_ok=True)
        assert not any(map(os.path.exists, aside))


def test_list_that_is_given_again_changes_nothing(tmp_path: Path) -> None:
    out = published(Folder.at(tmp_path / "out"))
    lines = ("7", "0.tar/41.png", f"{40:064x}", "http://x.org/42")
    remove(out, *lines)
    before = contents(out)
    done = remove(out, *lines)
    assert (done.images, done.generation, set(done.before)) == (0, None, set(lines))
    assert contents(out) == before


def test_url_is_found_in_another_spelling(tmp_path: Path) -> None:
    out = published(Folder.at(tmp_path / "out"))
    assert remove(out, "HTTP://X.org:80/b/../%34%31#top").images == 1
    assert 41 not in published_ids(out)


def test_same_bytes_under_another_id_go_too_and_are_told(tmp_path: Path) -> None:
    out = published(Folder.at(tmp_path / "out"))
    same = group([42]).set_column(5, "sha256", [[f"{7:064x}"]])
    write_parquet(out, "data/shard-00002.parquet", SCHEMA.remove_metadata(), iter([group([41]), same.cast(SCHEMA)]))
    done = remove(out, "7")
    assert done.duplicates == {"42": f"{7:064x}"}
    assert (done.images, done.shards) == (2, ("data/shard-00000.parquet", "data/shard-00002.parquet"))
    assert ids_in(out)["data/shard-00002.parquet"] == [41]


@pytest.mark.parametrize("line", ["8", "http://x.org/none", "b.jpg", "f" * 64])
def test_unknown_line_removes_nothing_unless_it_may_miss(tmp_path: Path, line: str) -> None:
    out = published(Folder.at(tmp_path / "out"))
    before = contents(out)
    with pytest.raises(UserError, match=rf"^list: names no image here: {line}; nothing is removed; --missing-ok"):
        remove(out, "7", line)
    assert contents(out) == before
    done = remove(out, "7", line, missing_ok=True)
    assert (done.images, done.unknown) == (1, (line,))


def test_hash_and_url_that_miss_are_kept_out_later(tmp_path: Path) -> None:
    out = published(Folder.at(tmp_path / "out"))
    remove(out, "F" * 64, "http://X.org/new", missing_ok=True)
    removals = removals_in(out.join(".publication"))
    rows = group([8, 9]).set_column(5, "sha256", [["f" * 64, None]]).set_column(6, "url", [[None, "http://x.org/new"]])
    assert removals.fitting(pl.LazyFrame(pl.DataFrame(rows))).collect()["id"].to_list() == [8, 9]


def test_what_was_removed_elsewhere_is_removed_here(tmp_path: Path) -> None:
    out = published(Folder.at(tmp_path / "out"))
    publication = stored_publication(out, "out")
    adopt_removals(publication, Removals(sha256=frozenset({f"{7:064x}"})))
    assert 7 not in published_ids(out)
    before = contents(out)
    adopt_removals(publication, Removals(sha256=frozenset({f"{7:064x}"})))
    assert contents(out) == before


def test_reasons_are_published_only_if_asked(tmp_path: Path) -> None:
    out = published(Folder.at(tmp_path / "out"))
    remove(out, "7\tprivate", "41 # a [face]", with_reasons=True)
    log = json.loads(out.read(".publication/removed-000001.json"))
    assert log["reasons"] == {"private": 1, "a [face]": 1}


_KILLED = """
import os, signal, sys
from pathlib import Path
from manifests.storage import Folder
from tests.pipeline.publishing.test_takedown import remove
replace, calls = os.replace, []
def counted(*paths):
    calls.append(paths)
    if len(calls) == write:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
for folder, write in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    if not (child := os.fork()):
        os.replace = counted
        remove(Folder.at(folder), "7", "41")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_kill_leaves_old_or_new_shards_and_a_rerun_finishes(tmp_path: Path) -> None:
    other, *outs = (published(Folder.at(tmp_path / name)) for name in ("other", "1", "3", "4", "6"))
    for each in (other, *outs):
        write_croissant(stored_publication(each, each.path), "t", len(IDS), {"data": SCHEMA})
    olds = [contents(out) for out in outs]
    writes = [1, 3, 4, 6]  # the note; the first shard; the second; croissant.json
    steps = [str(word) for out, write in zip(outs, writes, strict=True) for word in (out.path, write)]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *steps], capture_output=True, text=True, check=False)
    assert killed.stdout.split() == [str(-signal.SIGKILL)] * 4, killed.stderr
    remove(other, "7", "41")
    for out, old, write in zip(outs, olds, writes, strict=True):
        new = {out.path + path.removeprefix(other.path): data for path, data in contents(other).items()}
        for path, data in contents(out).items():
            known = data in (old.get(path), new.get(path)) or "/.publication/" in path or "/.aside-" in path
            assert known, f"killed at write {write}: {path}"
        assert remove(out, "7", "41").images == (2 if write == 1 else 0)
        left = {path: data for path, data in contents(out).items() if "/.aside-" not in path}
        assert left == new, f"killed at write {write}"


def test_images_are_removed_from_an_object_store(bucket: str) -> None:
    out = published(Folder.at(f"{bucket}/takedown"))
    assert remove(out, "7", "http://x.org/41").images == 2
    assert published_ids(out) == sorted(LEFT)


def test_command_names_what_it_removed_or_why_not(tmp_path: Path, vl3syn: Vl3syn) -> None:
    out = published(Folder.at(tmp_path / "out"))
    (tmp_path / "list").write_text("7\tby mail\n8\n")
    done = vl3syn("publish", "--out", out.path, "--remove", tmp_path / "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("list: names no image here: 8; nothing is removed; --missing-ok removes the others\n")
    done = vl3syn("publish", "--out", out.path, "--remove", tmp_path / "list", "--missing-ok")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("removed: 1 image, 1 shard written anew (generation 2)")
    assert "names no image here: 8" in done.stderr
    assert pq.read_table(tmp_path / "out/data/shard-00000.parquet")["id"].to_pylist() == [-3]
    assert not os.path.exists(tmp_path / "out/.publication/lease.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--remove", "list"], "name the publication with --out"),
        (["--out", "out", "--missing-ok"], "give --remove too"),
        (["--out", "out"], "name the run that is published"),
        (["--out", "out", "--remove", "list", "--seed", "1"], "publishes nothing"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(
    tmp_path: Path, vl3syn: Vl3syn, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text("7\n")
    done = vl3syn("publish", *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_folder_without_a_publication_is_told(tmp_path: Path, vl3syn: Vl3syn) -> None:
    (tmp_path / "list").write_text("7\n")
    done = vl3syn("publish", "--out", tmp_path / "out", "--remove", tmp_path / "list")
    assert done.returncode == 1
    assert "nothing is published there" in done.stderr
    assert not (tmp_path / "out").exists()
