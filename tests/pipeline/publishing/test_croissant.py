"""croissant.json: every shard with its hash, every column with its type; the same bytes for the same publication."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from manifests.storage import Folder
from pipeline.publishing.croissant import write_croissant
from pipeline.publishing.publication import stored_publication
from pipeline.publishing.shard_hashes import forget_hashes, hash_shards
from tests.conftest import jpeg
from tests.manifests.test_shard_copies import IDS, SCHEMA, group
from tests.pipeline.publishing.test_takedown import published, remove


def described(out: Folder) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(out.read("croissant.json"))
    return read


def publish(folder: Path, format_: str = "parquet") -> Folder:
    out = published(Folder.at(folder), format_)
    write_croissant(stored_publication(out, out.path), "a name", 6, {"data": SCHEMA})
    return out


@pytest.mark.parametrize("format_", ["parquet", "webdataset"])
def test_every_shard_stands_with_its_size_and_hash(tmp_path: Path, format_: str) -> None:
    out = publish(tmp_path / "out", format_)
    files = {each["contentUrl"]: each for each in described(out)["distribution"] if each["@type"] == "cr:FileObject"}
    shards = [file for file in (tmp_path / "out/data").iterdir() if file.suffix in (".parquet", ".tar")]
    assert files.keys() == {f"data/{shard.name}" for shard in shards}
    for shard in shards:
        entry = files[f"data/{shard.name}"]
        assert entry["sha256"] == hashlib.sha256(shard.read_bytes()).hexdigest()
        assert entry["contentSize"] == f"{shard.stat().st_size} B"


def test_columns_stand_with_their_types_and_sources(tmp_path: Path) -> None:
    (rows,) = described(publish(tmp_path / "out"))["recordSet"]
    fields = {field["name"]: field for field in rows["field"]}
    assert list(fields) == [f"data/{name}" for name in SCHEMA.names]
    types = {name: fields[f"data/{name}"]["dataType"] for name in ("id", "image", "score", "tags", "url")}
    assert types == {
        "id": "sc:Integer",
        "image": "sc:ImageObject",
        "score": "sc:Float",
        "tags": "sc:Text",
        "url": "sc:Text",
    }
    assert fields["data/tags"]["repeated"] is True
    turns = fields["data/conversations"]
    assert (turns["repeated"], "dataType" in turns) == (True, False)
    assert [part["name"] for part in turns["subField"]] == ["data/conversations/from", "data/conversations/value"]
    assert fields["data/score"]["description"] == "A score"


@pytest.mark.parametrize("format_", ["parquet", "webdataset"])
def test_no_two_nodes_have_one_name(tmp_path: Path, format_: str) -> None:
    read = described(publish(tmp_path / "out", format_))
    names = [node["@id"] for node in [*read["distribution"], *read["recordSet"]]]
    names += [field["@id"] for record_set in read["recordSet"] for field in record_set["field"]]
    assert len(names) == len(set(names))


def test_description_of_the_same_shards_has_the_same_bytes(tmp_path: Path) -> None:
    first, second = (publish(tmp_path / name).read("croissant.json") for name in "ab")
    assert first == second


def test_takedown_corrects_the_description(tmp_path: Path) -> None:
    out = publish(tmp_path / "out")
    before = described(out)
    remove(out, "7")
    after = described(out)
    assert (before["version"], after["version"]) == ("1.0.0", "2.0.0")
    assert after["description"].startswith("5 images")
    hashes = [{each["@id"]: each.get("sha256") for each in read["distribution"]} for read in (before, after)]
    assert {name for name, sha256 in hashes[0].items() if hashes[1][name] != sha256} == {"data/shard-00000.parquet"}
    shard = out.read("data/shard-00000.parquet")
    assert hashes[1]["data/shard-00000.parquet"] == hashlib.sha256(shard).hexdigest()


def test_older_publication_without_a_description_stays_so(tmp_path: Path) -> None:
    out = published(Folder.at(tmp_path / "out"))
    assert remove(out, "7").images == 1
    assert not out.exists("croissant.json")


def test_shard_that_is_written_again_is_hashed_again(tmp_path: Path) -> None:
    """Even where its length is the same."""
    out = publish(tmp_path / "out")
    publication, name = stored_publication(out, out.path), "data/shard-00001.parquet"
    changed = out.read(name)[::-1]
    assert hash_shards(publication)[name].sha256 != hashlib.sha256(changed).hexdigest()
    forget_hashes(publication, [name])
    out.write(name, changed)
    assert hash_shards(publication)[name].sha256 == hashlib.sha256(changed).hexdigest()


_READ = """
import json, sys
import mlcroissant
dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
rows = list(dataset.records(record_set="data"))
print(json.dumps([{
    "id": int(row["data/id"]),
    "size": row["data/image"].size,
    "said": [turn["data/conversations/value"].decode() for turn in row["data/conversations"]],
} for row in rows]))
print(json.dumps(sorted(dataset.metadata.ctx.issues.errors)))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mlcroissant_accepts_it_and_reads_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reader of MLCommons, in an environment of its own."""
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]

    def with_pictures(ids: list[int]) -> pa.Table:
        rows = group(ids).to_pylist()
        for row in rows:
            row |= {"conversations": turns, "tags": ["a"]}
            row["image"]["bytes"] = jpeg(20, 30)
        return pa.Table.from_pylist(rows, SCHEMA)

    monkeypatch.setattr("tests.pipeline.publishing.test_takedown.group", with_pictures)
    out = publish(tmp_path / "out")
    python = tmp_path / "environment/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "mlcroissant>=1.1,<2", "pyarrow", "pillow"], check=True)
    command = [python, "-c", _READ, f"{out.path}/croissant.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, errors = map(json.loads, done.stdout.splitlines())
    assert errors == []
    assert sorted(row["id"] for row in rows) == sorted(IDS)
    assert all(row["size"] == [20, 30] and row["said"] == ["What?", "That."] for row in rows)
