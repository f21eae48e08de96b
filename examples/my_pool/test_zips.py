"""The pool's own test, from the command line: index, stages that read images, publication."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

from manifests import open_run
from tests.chat_server import chat_server

HERE = Path(__file__).parent


def png(colours: int) -> bytes:
    """A picture of 64 x 64 pixels in that many colours: grey for one, else random."""
    pixels = np.random.default_rng(colours).integers(0, 256, (colours, 3))[np.arange(64 * 64) % colours]
    pixels = np.full((64 * 64, 3), 128) if colours == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8).reshape(64, 64, 3)).save(file, "PNG")
    return file.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> None:
    with ZipFile(path, "w", ZIP_DEFLATED) as file:
        file.mkdir("images")
        for name, data in members.items():
            file.writestr(name, data)


def test_recipe_indexes_measures_and_publishes_images_of_zips(tmp_path: Path) -> None:
    archives = tmp_path / "archives"
    archives.mkdir()
    a, b, grey = png(3), png(5), png(1)
    archive(archives / "0.zip", {"images/a.png": a, "about.md": b"x", "images/cut.png": b[:20], "other/c.png": a})
    archive(archives / "1.zip", {"images/grey.png": grey, "images/b.png": b})
    (archives / "2.zip").write_bytes(b"no zip")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    command = [sys.executable, "-m", "pipeline", "run", "recipe.yaml", "--run", "run", "--json"]

    with chat_server() as server:
        recipe = yaml.safe_load((HERE / "recipe.yaml").read_text())
        caption = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server.url}}
        recipe |= {"stages": [*recipe["stages"], caption], "publish": {}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "pool: passed over members of zips:Zips that are no images or texts by their ending: " in done.stderr

    index = open_run(str(tmp_path / "run")).index.scan().collect()
    errors = dict(index.select("key", "error").iter_rows())
    assert sorted(key for key, error in errors.items() if error is None) == [
        "images/a.png",
        "images/b.png",
        "images/grey.png",
    ]
    assert errors["images/cut.png"].startswith("broken header: PNG")
    assert errors["2.zip"] == "broken zip: File is not a zip file"
    published = pq.read_table(tmp_path / "run" / "shards" / "data", columns=["image"])
    assert sorted(cell["bytes"] for cell in published["image"].to_pylist()) == sorted([a, b])

    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert again.returncode == 0, again.stderr
    assert [job["computed"] for job in json.loads(again.stdout)["jobs"]] == [0, 0, 0]
