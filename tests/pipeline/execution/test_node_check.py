"""What a machine sees at a path, how another one differs, and relative paths. tests/cluster has the nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from manifests.storage import Folder
from pipeline.execution.node_check import LocalPath, check_absolute, check_nodes, difference, look, pool_files
from pipeline.pools import Listing, Shard
from pipeline.pools.listing import shard_table
from pipeline.recipe import parse_recipe


def test_files_of_a_folder_are_seen_by_name_and_length(tmp_path: Path) -> None:
    (tmp_path / "model/part").mkdir(parents=True)
    (tmp_path / "model/config.json").write_bytes(b"{}")
    (tmp_path / "model/part/weights").write_bytes(b"12345")
    folder, file = LocalPath("model", str(tmp_path / "model")), LocalPath("pool", str(tmp_path / "model/config.json"))
    seen = look([folder, file, LocalPath("pool", str(tmp_path / "absent"))])
    assert seen == {folder: {"config.json": 2, "part/weights": 5}, file: {"": 2}}


def test_files_behind_a_link_are_those_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/config.json").write_bytes(b"{}")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    one, two = (LocalPath("model", str(tmp_path / name)) for name in ("one", "two"))
    seen = look([one, two])
    assert seen[one] == seen[two] == {"config.json": 2}


@pytest.mark.parametrize(
    ("there", "text"),
    [
        (None, "is not there"),
        ({"a": 1}, "b is not there"),
        ({"a": 1, "b": 2000}, "b has 1,000 bytes here and 2,000"),
        ({"a": 1, "b": 1000, "log": 5}, ""),
    ],
)
def test_difference_names_the_first_file_that_differs(there: dict[str, int] | None, text: str) -> None:
    assert difference({"a": 1, "b": 1000}, there) == text


def test_difference_of_a_single_file_is_its_length() -> None:
    assert difference({"": 1}, {"": 2}) == "it has 1 bytes here and 2"


ABSOLUTE: dict[str, Any] = {"pool": {"images": "/pool"}, "stages": []}
CAPTION = {"stage": "short_caption", "model": "./InternVL2-8B"}
SERVER = {"engine": {"kind": "server", "url": "http://127.0.0.1:9/v1"}}


@pytest.mark.parametrize(
    ("recipe", "run", "named"),
    [
        (ABSOLUTE, "runs/1", "run: runs/1"),
        ({**ABSOLUTE, "pool": {"images": "pool"}}, "/runs/1", "pool: pool"),
        ({**ABSOLUTE, "stages": [{**CAPTION, "engine": {"kind": "transformers"}}]}, "/runs/1", "short_caption: model"),
    ],
)
def test_relative_path_is_refused_on_a_cluster(
    recipe: dict[str, Any], run: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = parse_recipe(recipe, "test")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_absolute(checked, run)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    check_absolute(checked, run)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match=f"^{named}.* is a relative path, .* give an absolute path or a URL$"):
        check_absolute(checked, run)


def test_path_of_a_model_on_a_server_is_the_servers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = parse_recipe({**ABSOLUTE, "stages": [{**CAPTION, **SERVER}]}, "test")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_absolute(checked, "s3://bucket/run")


def test_no_cluster_is_asked_about_urls(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    """Nothing answers at this address."""
    checked = parse_recipe({**ABSOLUTE, "pool": {"images": f"{bucket}/none"}}, "test")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    check_nodes(checked, f"{bucket}/run")


def test_film_inside_of_a_tar_is_compared_as_the_tar(tmp_path: Path) -> None:
    """A shard of a run of clips is a film: its file, and behind `//` its name in the file."""
    films = parse_recipe({"pool": {"videos": str(tmp_path)}}, "test").pool
    shards = shard_table([Shard("0.tar//a.mp4", 1), Shard("0.tar//b.mp4", 2), Shard("c.mp4", 3)])
    paths = [path.path for path in pool_files(films, "run", Listing(Folder.at(tmp_path), shards))]
    assert paths == [f"{tmp_path}/0.tar", f"{tmp_path}/c.mp4"]
