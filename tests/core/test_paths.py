"""Paths of users: what can be none is refused in one line, and only regular files are replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from manifests.storage import Folder
from tests.model.training.test_recipe import GOOD, changed


def test_pipe_at_the_path_of_a_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe: is a pipe, socket or device, not a file: name a file$"):
        Folder.at(tmp_path).write("pipe", b"x")
    assert stat.S_ISFIFO(os.lstat(tmp_path / "pipe").st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize(
    ("url", "said"), [("", "an empty path: name a file or folder; . is the current folder"), ("a\0b", "it has a NUL")]
)
def test_invalid_path_is_refused(url: str, said: str) -> None:
    from model.training.recipe import load_recipe as load_training
    from model.training.recipe import parse_recipe
    from model.training.run import train
    from pipeline.recipe import load_recipe

    calls: list[Any] = [lambda: Folder.at(url), lambda: load_recipe(url), lambda: load_training(url)]
    calls.append(lambda: train(parse_recipe(GOOD, "r.yaml"), url))
    for call in calls:
        with pytest.raises(UserError) as raised:
            call()
        assert said in str(raised.value)


@pytest.mark.parametrize(
    "key",
    ["sources.qa.annotations", "sources.qa.media", "sources.qa.roots", "sources.captions.shards", "model.checkpoint"],
)
def test_nul_in_a_path_of_a_training_recipe_is_a_one_line_error(key: str) -> None:
    from model.training.recipe import parse_recipe

    with pytest.raises(UserError) as raised:
        parse_recipe(changed(key, ["a\0"] if key.endswith("roots") else "a\0"), "r.yaml")
    assert str(raised.value).startswith(f"r.yaml: {key}")
    assert str(raised.value).endswith(r"'a\x00': no path: it has a NUL in it")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("s3://bucket/out", "--run: s3://bucket/out is a URL: give a folder on this machine"),
        ("", "--run: an empty path: name a file or folder"),
        ("file", "--run: file is a file, not a folder: name another folder"),
        ("file/run", "--run: file is a file, not a folder: name another folder"),
    ],
)
def test_training_into_an_invalid_folder_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, out: str, said: str
) -> None:
    from model.training.ray_launch import train_on_workers
    from model.training.recipe import parse_recipe
    from model.training.run import train

    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    recipe = parse_recipe(GOOD, "r.yaml")
    with pytest.raises(UserError) as raised:
        train(recipe, out) if workers == 1 else train_on_workers(recipe, out, workers)
    assert str(raised.value).startswith(said)
    assert os.listdir() == ["file"]
