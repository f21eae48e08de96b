"""`vl3syn look`: a page with the images that fit."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests import Run
from manifests.storage import Folder
from tests.conftest import jpeg
from tests.stored_facts import store_run

Call = Callable[..., subprocess.CompletedProcess[str]]

HOSTILE = "<script>alert(1)<!--\"'&.jpg"


@pytest.fixture
def run(tmp_path: Path, make_images: Callable[..., Path]) -> Run:
    pool = make_images(tmp_path / "pool", 10)
    (pool / HOSTILE).write_bytes(jpeg(30, 30))
    (pool / "broken.jpg").write_bytes(b"")
    facts = {f"{number:06d}.jpg": {"quality": number / 10} for number in range(10)} | {HOSTILE: {"quality": 0.95}}
    recipe = {"name": "t", "pool": {"images": str(pool)}, "stages": [{"stage": "quality", "keep": {"min": 0.25}}]}
    return store_run(tmp_path / "run", recipe, {"quality": facts})


def test_page_has_the_images_that_fit_in_order(run: Run, vl3syn: Call) -> None:
    condition = "quality < 0.8 and status = 'kept'"
    options = ("--where", condition, "--sort", "quality", "--descending", "--limit", 3, "--column", "width", "--json")
    done = vl3syn("look", run.url, *options)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    page = Path(run.url, "look.html")
    assert (said["page"], said["bytes"], said["fitting"]) == (str(page), page.stat().st_size, 5)
    assert [image["key"] for image in said["images"]] == ["000007.jpg", "000006.jpg", "000005.jpg"]
    assert said["images"][0]["values"] == {"quality": "0.7", "width": "27"}
    text = page.read_text()
    assert re.findall(r'alt="([^"]*)"', text) == ["000007.jpg", "000006.jpg", "000005.jpg"]
    assert text.count('src="data:image/jpeg;base64,') == 3
    assert "5 images fit; 3 of them are shown, by quality, the largest first." in text
    assert "quality &lt; 0.8 and status = &#39;kept&#39;" in text


def test_page_of_everything_is_escaped_and_loads_nothing(run: Run, tmp_path: Path, vl3syn: Call) -> None:
    done = vl3syn("look", run.url, "--out", tmp_path / "sub" / "page.html", "--where", "key <> '<script>'")
    assert done.returncode == 0, done.stderr
    assert "12 of 12 images that fit; 1 without a picture, with the reason" in done.stderr
    text = (tmp_path / "sub" / "page.html").read_text()
    assert "<script" not in text
    loaded = re.findall(r"""(?:src|href)=["']?([^"'>]*)""", text)
    assert len(loaded) > 11
    assert all(address.startswith(("data:image/jpeg;", "#")) for address in loaded)
    assert "&lt;script&gt;alert(1)&lt;!--&#34;&#39;&amp;.jpg" in text
    assert '<p class="absent">empty' in text


def test_seed_makes_the_choice_random_and_repeatable(run: Run, tmp_path: Path, vl3syn: Call) -> None:
    def keys(*options: object) -> list[str]:
        done = vl3syn("look", run.url, "--limit", 4, "--json", "--out", tmp_path / "a.html", *options)
        return [image["key"] for image in json.loads(done.stdout)["images"]]

    assert keys("--random") == keys("--seed", 0)
    assert keys("--seed", 1) == keys("--seed", 1)
    assert len({tuple(keys("--seed", seed)) for seed in range(4)} | {tuple(keys())}) > 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--where", "qualty < 1"), "no column 'qualty'; did you mean 'quality'?"),
        (("--where", "quality"), "gives Float32, not true or false"),
        (("--where", "quality <"), "is no SQL expression"),
        (("--sort", "qualty"), "no column 'qualty' to sort by; did you mean 'quality'?"),
        (("--column", "qualty"), "no column 'qualty'; did you mean 'quality'?"),
        (("--descending",), "name the column to sort by with --sort"),
    ],
)
def test_wrong_options_are_one_line(run: Run, vl3syn: Call, options: tuple[str, ...], said: str) -> None:
    refused = vl3syn("look", run.url, *options)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1), refused.stderr
    assert said in refused.stderr
    assert not Path(run.url, "look.html").exists()


def test_run_on_an_object_store_has_its_page_there(run: Run, bucket: str, tmp_path: Path, vl3syn: Call) -> None:
    facts = {f"{number:06d}.jpg": {"quality": number / 10} for number in range(10)}
    stages = [{"stage": "quality", "keep": {"min": 0.25}}]
    stored = store_run(f"{bucket}/look", {**run.recipe, "stages": stages, "name": "s"}, {"quality": facts})
    done = vl3syn("look", stored.url, "--where", "quality > 0.65")
    assert done.returncode == 0, done.stderr
    assert Folder.at(stored.url).read("look.html").count(b"data:image/jpeg;base64,") == 3


def test_condition_that_no_image_fits_makes_an_empty_page(run: Run, vl3syn: Call) -> None:
    done = vl3syn("look", run.url, "--where", "quality > 1")
    assert done.returncode == 0, done.stderr
    assert "0 of 0 images that fit" in done.stderr
    assert "0 images fit" in Path(run.url, "look.html").read_text()
