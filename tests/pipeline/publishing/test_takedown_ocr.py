"""Takedowns and the subset `ocr`, which has fewer images than its lists: both counts stay right."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UserError
from manifests import Run
from manifests.removals import add_takedown, takedowns_in
from manifests.shard_copies import write_without
from manifests.storage import Folder
from pipeline.publishing.publication import stored_publication
from tests.pipeline.publishing.test_ocr_captions import digests, publish, signs
from tests.pipeline.publishing.test_takedown import ids_in, remove

pytestmark = pytest.mark.usefixtures("here")
__all__ = ["signs"]  # a fixture
TEXT, PLAIN = "03.png", "04.png"  # every third image has text


@pytest.fixture(scope="module", params=["parquet", "webdataset"])
def prepared(request: pytest.FixtureRequest, signs: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    publish(signs, out, "short", "ocr", format=request.param)
    return out


@pytest.fixture
def out(prepared: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(prepared, tmp_path / "out"))


def again(run: Run, out: Path) -> tuple[int, int | None]:
    """Publish again; return the images in all shards, and those with text."""
    how = json.loads((out / ".publication/settings.json").read_text())
    done = publish(run, out, *how["subsets"], format=how["format"])
    return done.rows, done.with_text


def with_key(run: Run, key: str) -> int:
    return int(dict(run.index.scan(["key", "id"]).collect().iter_rows())[key])


def test_image_leaves_the_subsets_that_have_it(signs: Run, out: Path) -> None:
    before, bytes_before = ids_in(Folder.at(out)), digests(out)
    text, plain = with_key(signs, TEXT), with_key(signs, PLAIN)
    done = remove(Folder.at(out), f"key:{TEXT}", f"key:{PLAIN}")
    assert done.images == 2
    assert set(done.shards) == {name for name, ids in before.items() if {text, plain} & set(ids)}
    after = ids_in(Folder.at(out))
    assert after == {name: [id_ for id_ in ids if id_ not in (text, plain)] for name, ids in before.items()}
    assert len([name for name in done.shards if name.startswith("ocr/")]) == 1
    kept = {name: digest for name, digest in digests(out).items() if name not in done.shards}
    changed = {name for name, digest in kept.items() if bytes_before.get(name) != digest}
    assert changed <= {"README.md", "croissant.json", ".publication/removed-000001.json", ".publication/sha256.json"}
    card, described = (out / "README.md").read_text(), json.loads((out / "croissant.json").read_text())
    assert "\n28 images with captions, chosen out of 30" in card
    assert "\n9 of the images, those with text." in card
    assert described["description"].startswith("28 images")
    files = {each["@id"]: each["sha256"] for each in described["distribution"] if each["@type"] == "cr:FileObject"}
    assert files == {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in before}
    assert again(signs, out) == (28, 9)


@pytest.mark.parametrize("written", [1, 2])
def test_takedown_that_was_cut_off_is_finished(signs: Run, out: Path, tmp_path: Path, written: int) -> None:
    """After so many of its shards: `publish` takes the old and the new ones, and then all are new."""
    other = Path(shutil.copytree(out, tmp_path / "other"))
    remove(Folder.at(other), f"key:{TEXT}", f"key:{PLAIN}")
    (log,) = takedowns_in(Folder.at(other / ".publication"))
    assert len(log.shards) >= 2
    add_takedown(Folder.at(out / ".publication"), replace(log, finished=False))
    for name in sorted(log.shards, reverse=True)[:written]:  # those of `ocr` last in one half of the cases, then first
        write_without(Folder.at(out), name, log.removals.ids)
    assert again(signs, out) == again(signs, other) == (28, 9)
    assert digests(out) == digests(other)


def test_old_copy_of_a_shard_brings_nobody_back(signs: Run, prepared: Path, out: Path) -> None:
    done = remove(Folder.at(out), f"key:{TEXT}")
    after = ids_in(Folder.at(out))
    for name in done.shards:
        shutil.copy(prepared / name, out / name)
    if done.shards[0].endswith(".parquet"):
        with pytest.raises(UserError, match=r"the shard is damaged \(it has \d+ images, and its list \d+\)"):
            again(signs, out)
        for name in done.shards:
            (out / name).unlink()
        assert again(signs, out) == (29, 9)
    else:  # a tar is not read in full by `publish`
        assert remove(Folder.at(out), f"key:{TEXT}").images == 1
    assert ids_in(Folder.at(out)) == after


@pytest.mark.parametrize("gone", [[TEXT], [f"{number:02d}.png" for number in range(0, 30, 3)]])
def test_subset_alone_counts_what_is_left(signs: Run, tmp_path: Path, gone: list[str]) -> None:
    out = tmp_path / "out"
    publish(signs, out, "ocr")
    remove(Folder.at(out), *(f"key:{key}" for key in gone))
    rows = 10 - len(gone)
    assert f"\n{rows} images with captions, chosen out of 30" in (out / "README.md").read_text()
    assert again(signs, out) == (rows, rows)
    published = sorted(id_ for ids in ids_in(Folder.at(out)).values() for id_ in ids)
    assert stored_publication(Folder.at(out), "out").published()["id"].sort().to_list() == published
    assert len(published) == rows


def test_deleted_shard_comes_back_without_the_removed(signs: Run, out: Path) -> None:
    (name,) = (n for n in remove(Folder.at(out), f"key:{TEXT}").shards if n.startswith("ocr/"))
    again(signs, out)
    before = digests(out)[name]
    (out / name).unlink()
    assert again(signs, out) == (29, 9)
    assert digests(out)[name] == before


def test_publication_that_was_cut_off_can_be_taken_from(signs: Run, out: Path) -> None:
    """A shard of `ocr` and its file beside the lists are not there yet."""
    for name in ("ocr/shard-00001", ".publication/ocr-00001"):
        (file,) = out.glob(f"{name}.*")
        file.unlink()
    remove(Folder.at(out), f"key:{TEXT}")
    assert again(signs, out) == (29, 9)
