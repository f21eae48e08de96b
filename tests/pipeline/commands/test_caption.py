"""`vl3syn caption short` and `detailed`: which engine their options mean."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands.caption import _engine

MakeImages = Callable[..., Path]


@pytest.fixture
def indexed(tmp_path: Path, make_images: MakeImages, vl3syn: Callable[..., subprocess.CompletedProcess[str]]) -> Path:
    vl3syn("index", "--images", make_images(tmp_path / "pool", 3), "--run", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("options", [["--server", "http://127.0.0.1:9/v1"], ["--engine", "transformers"]])
def test_remote_code_is_refused_beside_another_engine(
    options: list[str], indexed: Path, vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = vl3syn("caption", "short", "--run", indexed, "--model", "some/model", "--trust-remote-code", *options)
    assert done.returncode == 1
    kind = "server" if "--server" in options else "transformers"
    assert done.stderr == f"vl3syn: --trust-remote-code applies to lmdeploy, and the engine is {kind}\n"


def test_remote_code_is_a_setting_of_lmdeploy(indexed: Path) -> None:
    assert _engine(str(indexed), "short_caption", None, None, None, None, True) == {
        "kind": "lmdeploy",
        "trust_remote_code": True,
    }
    assert _engine(str(indexed), "short_caption", None, None, None, None, None) is None
