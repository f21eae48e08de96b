"""The tar of a part: what reads it, and what is known of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline.stages.download.fetching.tar_writer import Row, TarWriter

SIZES = {"original_width": 40, "original_height": 30}
FINE = {"url": "http://a/\u00e9", "status": "success", "error_message": None, **SIZES}
IMAGES = {3: b"\xff\xd8\xff" + b"a" * 700, 8: b"b" * 512, 1: b"c" * 300_000}
"""Images by row, in the order in which they come: less than a block, a block, and more than is written at once."""


@pytest.fixture
def written(tmp_path: Path) -> TarWriter:
    """The writer of `tmp_path/part.tar`."""
    writer = TarWriter(f"{tmp_path}/part.tar")
    for row, image in IMAGES.items():
        writer.write(image, f"{700_000 + row:010d}", None, FINE)
    writer.write(None, "0000700005", None, {"status": "failed_to_download", "error_message": "HTTP 404"})
    writer.write(None, "0000700006", None, {"status": "failed_to_resize", "error_message": "Image decoding error"})
    writer.close()
    return writer


def test_rows_say_where_the_images_are(written: TarWriter, tmp_path: Path) -> None:
    data = (tmp_path / "part.tar").read_bytes()
    for number, image in IMAGES.items():
        row = written.rows[number]
        assert row.offset is not None
        assert data[row.offset : row.offset + len(image)] == image
        assert row[2:] == (len(image), hashlib.sha256(image).hexdigest(), 40, 30)
    assert written.rows[5] == Row("HTTP 404")
    assert written.rows[6] == Row("cannot be resized: Image decoding error")


def test_tar_has_an_image_and_its_row_for_each_key(written: TarWriter, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "part.tar", "r:", errorlevel=2) as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        contents = {name: file.read() for name, file in members.items() if file}
        assert (tmp_path / "part.tar").read_bytes()[archive.offset :] == b"\0" * 1024
    assert list(contents) == [f"000070000{row}.{end}" for row in IMAGES for end in ("jpg", "json")]
    for row, image in IMAGES.items():
        assert contents[f"000070000{row}.jpg"] == image
        assert json.loads(contents[f"000070000{row}.json"]) == {**FINE, "sha256": hashlib.sha256(image).hexdigest()}


def test_tar_of_the_system_reads_it(written: TarWriter, tmp_path: Path) -> None:
    listed = subprocess.run(["tar", "-tf", tmp_path / "part.tar"], check=True, capture_output=True, text=True)
    assert len(listed.stdout.split()) == 2 * len(IMAGES)
    assert listed.stderr == ""


def test_nothing_is_written_after_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "part.tar").symlink_to("/dev/full")
    writer = TarWriter(f"{tmp_path}/part.tar")
    for key in ("0000000001", "0000000002"):
        with pytest.raises(OSError, match="No space left on device"):
            writer.write(b"a" * 300_000, key, None, FINE)
    assert writer.rows == {}
    assert str(writer.problem) == "[Errno 28] No space left on device"
