"""Shards written anew: what goes is gone, what stays has the same bytes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.schemas import ID, column
from manifests.shard_copies import identities, write_without
from manifests.shards import CONVERSATIONS, IMAGE, write_parquet
from manifests.storage import Folder
from manifests.tar_shards import write_tar

SCHEMA = pa.schema(
    [
        ID,
        column("image", IMAGE, "The image"),
        column("conversations", CONVERSATIONS, "Turns"),
        column("score", pa.float32(), "A score", 0, 1),
        column("tags", pa.list_(pa.string()), "Tags"),
        column("sha256", pa.string(), "Hash"),
        column("url", pa.string(), "URL"),
        column("source_shard", pa.string(), "Shard"),
        column("source_key", pa.string(), "Key"),
    ]
)
IDS = [7, -3, 1 << 62, 40, 41, 42]


def group(ids: list[int]) -> pa.Table:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Ä that."}]
    rows: list[dict[str, Any]] = [
        {
            "id": id_,
            "image": {"bytes": f"{id_}".encode() * 300, "path": f"{id_}.png"},
            "conversations": turns if id_ % 2 else None,
            "score": None if id_ == 40 else 0.25,
            "tags": ["a", None] if id_ % 2 else [],
            "sha256": f"{id_:064x}".replace("-", "f"),
            "url": f"http://x.org/{id_}" if id_ > 0 else None,
            "source_shard": "0.tar",
            "source_key": f"{id_}.png",
        }
        for id_ in ids
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def write(folder: Path, name: str, *groups: list[int]) -> Path:
    tables = iter([group(ids) for ids in groups if ids])
    (write_tar if name.endswith("tar") else write_parquet)(Folder.at(folder), name, SCHEMA.remove_metadata(), tables)
    return folder / name


@pytest.mark.parametrize("name", ["data/shard-00000.parquet", "data/shard-00000.tar"])
@given(gone=st.sets(st.sampled_from([*IDS, 99])))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shard_without_images_is_as_if_they_had_never_been(tmp_path: Path, name: str, gone: set[int]) -> None:
    """Byte for byte, so that what stays has its bytes, values, order and row groups."""
    shard = write(tmp_path / "a", name, IDS[:4], IDS[4:])
    assert write_without(Folder.at(tmp_path / "a"), name, gone) == len(gone & set(IDS))
    groups = [[id_ for id_ in ids if id_ not in gone] for ids in (IDS[:4], IDS[4:])]
    assert shard.read_bytes() == write(tmp_path / "b", name, *groups).read_bytes()


@pytest.mark.parametrize("name", ["data/shard-00000.parquet", "data/shard-00000.tar"])
def test_shard_without_such_images_is_not_written(tmp_path: Path, name: str) -> None:
    shard = write(tmp_path, name, IDS)
    before = shard.stat()
    assert write_without(Folder.at(tmp_path), name, {5}) == 0
    assert (shard.stat().st_ino, shard.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("name", ["data/shard-00000.parquet", "data/shard-00000.tar"])
def test_identities_are_the_names_of_each_image(tmp_path: Path, name: str) -> None:
    shard = write(tmp_path, name, IDS)
    rows = identities(Folder.at(tmp_path), pafs.LocalFileSystem().get_file_info(str(shard))).rows(named=True)
    assert [row["id"] for row in rows] == IDS
    assert (rows[0]["url"], rows[1]["url"], rows[0]["source_key"]) == ("http://x.org/7", None, "7.png")


def test_tar_of_an_earlier_version_loses_only_the_removed(tmp_path: Path) -> None:
    """In tars of an earlier version, the ending of an image is that of its format."""
    (tmp_path / "data").mkdir()
    shard = tmp_path / "data/shard-00000.tar"
    members = {"7.png": b"p", "7.json": b'{"id": 7}', "70.png": b"q", "70.json": b'{"id": 70}'}
    with tarfile.open(shard, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert write_without(Folder.at(tmp_path), "data/shard-00000.tar", {7}) == 1
    with tarfile.open(shard) as tar:
        assert {name: tar.extractfile(name).read() for name in tar.getnames()} == {  # type: ignore[union-attr]
            name: members[name] for name in ("70.png", "70.json")
        }


@pytest.mark.parametrize("name", ["data/shard-00000.parquet", "data/shard-00000.tar"])
def test_damaged_shard_is_named_and_left_alone(tmp_path: Path, name: str) -> None:
    shard = write(tmp_path, name, IDS)
    data = bytearray(shard.read_bytes())
    data[: len(data) // 2] = b"\x55" * (len(data) // 2)
    shard.write_bytes(data)
    with pytest.raises(UserError, match=rf"^{shard}: the shard is damaged \(.+\); delete it and publish again"):
        write_without(Folder.at(tmp_path), name, {7})
    assert shard.read_bytes() == data


def test_parquet_left_without_images_has_no_row_group(tmp_path: Path) -> None:
    shard = write(tmp_path, "data/shard-00000.parquet", IDS)
    write_without(Folder.at(tmp_path), "data/shard-00000.parquet", IDS)
    assert pq.read_metadata(shard).num_row_groups == 0
    assert pq.read_schema(shard).names == SCHEMA.names
