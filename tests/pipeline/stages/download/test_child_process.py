"""Which Python fetches."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.stages.download.child_process import find_python

ROOT = Path(__file__).parents[4]


def test_python_that_is_given_is_taken() -> None:
    assert find_python("~/fetching/bin/python") == str(Path.home() / "fetching/bin/python")


def test_python_of_setup_download_is_the_default() -> None:
    assert find_python(None) == str(ROOT / ".venv-download/bin/python")


def test_this_python_is_taken_if_it_has_img2dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "img2dataset.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_python(None) == sys.executable
