"""Shared by the tests of downloading: img2dataset's environment, a server, and settings that reach it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from pipeline.stages.download.child_process import ROOT
from pipeline.stages.download.settings import DownloadSettings
from tests.web_server import WebServer, serving

MakeSettings = Callable[..., DownloadSettings]


@pytest.fixture(scope="session")
def download_python() -> str:
    """The Python with img2dataset: of `make setup-download`, or of the variable VL3SYN_DOWNLOAD_PYTHON."""
    python = os.environ.get("VL3SYN_DOWNLOAD_PYTHON") or str(ROOT / ".venv-download" / "bin" / "python")
    if not os.path.exists(python):
        pytest.fail("img2dataset's environment is missing: run `make setup-download`")
    return python


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A server on all loopback addresses."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def make_settings(download_python: str) -> MakeSettings:
    """Settings with short times, that may connect to the addresses 127.0.0.2 and 127.0.0.3 of loopback."""

    def make(**changes: object) -> DownloadSettings:
        allow = ("127.0.0.2", "127.0.0.3")
        few = {"python": download_python, "allow": allow, "timeout": 2, "max_bytes": 1_000_000, "min_pause": 0}
        return DownloadSettings.model_validate(few | changes)

    return make
