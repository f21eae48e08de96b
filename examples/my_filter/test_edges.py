"""The filter's own test: known pictures, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from edges import Edges
from PIL import Image

from core.errors import BadSampleError

HERE = Path(__file__).parent


def stripes(width: int = 64) -> Image.Image:
    """Vertical lines of one pixel, 8 pixels apart."""
    image = Image.new("RGB", (width, 64), "white")
    for x in range(4, width, 8):
        image.paste("black", (x, 0, x + 1, 64))
    return image


def test_blank_image_has_no_edges() -> None:
    assert Edges().measure(Image.new("RGB", (64, 64), "grey")) == {"edges": 0.0}


def test_stripes_have_edges_on_every_line() -> None:
    """8 lines of 62 columns are black, and FIND_EDGES is positive next to them: 16 columns."""
    assert Edges().measure(stripes()) == {"edges": pytest.approx(16 / 62)}


def test_image_of_two_pixels_is_a_bad_sample() -> None:
    with pytest.raises(BadSampleError, match="too small"):
        Edges().measure(Image.new("RGB", (2, 64)))


def test_recipe_drops_the_blank_image_with_a_reason(tmp_path: Path) -> None:
    pool = tmp_path / "photos"
    pool.mkdir()
    Image.new("RGB", (64, 64), "grey").save(pool / "blank.png")
    Image.new("RGB", (2, 2)).save(pool / "dot.png")
    stripes().save(pool / "stripes.png")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    command = [sys.executable, "-m", "pipeline"]
    command += ["run", str(HERE / "recipe.yaml"), "--run", "run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    edges = json.loads(done.stdout)["funnel"]["stages"][-1]
    assert (edges["stage"], edges["seen"], edges["kept"], edges["errors"]) == ("edges", 3, 1, 1)
    assert edges["reasons"] == {"too small": 1, "edges < 0.01": 1}
