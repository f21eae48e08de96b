"""Media that lines of annotations name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.training import training_data


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Two images, a clip that nobody opens, a folder of frames."""
    for number, name in enumerate(("a.png", "b.png", "frames/1.png", "frames/2.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(training_data.picture(number))
    (tmp_path / "clip.mp4").touch()
    return tmp_path
