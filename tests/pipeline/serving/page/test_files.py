from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from core.errors import BadSampleError, UserError
from pipeline.serving.page.files import adopt, without_paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "visitor"
    folder.mkdir()
    return folder


def test_files_get_names_of_ours_and_kinds_by_content(tmp_path: Path, folder: Path) -> None:
    still, moving = Image.new("RGB", (8, 8)), [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 99)]
    still.save(tmp_path / "film.mp4", "PNG")
    moving[0].save(tmp_path / "cat.gif", save_all=True, append_images=moving[1:])
    (tmp_path / "a.sh.mov").write_bytes(b"film")
    (tmp_path / "broken.jpg").write_bytes(b"jpeg")
    names = ["film.mp4", "cat.gif", "a.sh.mov", "broken.jpg"]
    files = adopt([tmp_path / name for name in names], folder, 2, 10_000)
    assert [file.name for file in files] == names
    assert [file.kind for file in files] == ["image", "video", "video", "image"]
    assert {file.path.parent for file in files} == {folder}
    assert [file.path.stem for file in files] == ["medium-2", "medium-3", "medium-4", "medium-5"]
    assert {file.path.suffix for file in files} <= {"", ".mov", ".qt", ".mp4"}


def test_upload_stays_for_another_visitor(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    first, second = (adopt([tmp_path / "a.mp4"], folder, number, 100)[0] for number in (0, 1))
    first.path.unlink()
    assert second.path.read_bytes() == b"film"


def test_files_that_are_too_large_together_are_refused(tmp_path: Path, folder: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(bytes(60))
    with pytest.raises(UserError, match="more than 100 bytes"):
        adopt([tmp_path / "a.mp4", tmp_path / "b.mp4"], folder, 0, 100)
    assert list(folder.iterdir()) == []


def test_link_and_folder_are_no_files(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    for name in ("link.mp4", "visitor", "gone.mp4"):
        with pytest.raises(BadSampleError, match=f"{name}: no file"):
            adopt([tmp_path / name], folder, 0, 100_000)


def test_error_has_the_name_of_the_visitor(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"film")
    files = adopt([tmp_path / "holiday.mp4"], folder, 0, 100)
    assert without_paths(f"{files[0].path}: is broken", files) == "holiday.mp4: is broken"
