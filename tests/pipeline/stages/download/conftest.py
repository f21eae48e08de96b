"""Shared by the tests of the stage: settings that reach the tests' server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.stages.download.settings import DownloadSettings

MakeSettings = Callable[..., DownloadSettings]


@pytest.fixture(scope="session")
def make_settings(download_python: str) -> MakeSettings:
    """Settings with short times, that may connect to the addresses 127.0.0.2 and 127.0.0.3 of loopback."""

    def make(python: str = download_python, **changes: object) -> DownloadSettings:
        allow = ("127.0.0.2", "127.0.0.3")
        few = {"engine": {"python": python}, "allow": allow, "timeout": 2, "max_bytes": 1_000_000, "min_pause": 0}
        return DownloadSettings.model_validate(few | changes)

    return make
