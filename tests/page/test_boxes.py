"""Boxes of an answer on the page, by a model that has learned one."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from model import Processor, VideoLLaMA3
from model.config import preset
from tests.page.conftest import Site, serving

pytestmark = [pytest.mark.page, pytest.mark.timeout(900)]

ANSWER = "<ref>blue square</ref>[[312,208,625,625]]"
QUESTION = "Where is the blue square?"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blue square on beige ground."""
    from PIL import Image

    image = Image.new("RGB", (112, 84), "beige")
    image.paste("royalblue", (35, 18, 70, 52))
    file = tmp_path_factory.mktemp("scenes") / "scene.png"
    image.save(file)
    return file


@pytest.fixture(scope="module")
def grounded(scene: Path, browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server whose model finds the square in that image."""
    import torch

    torch.manual_seed(0)
    model, processor = VideoLLaMA3(preset("tiny")), Processor.tiny()
    asked = {"role": "user", "content": [{"type": "image", "image": str(scene)}, QUESTION]}
    whole = processor([asked, {"role": "assistant", "content": ANSWER}])
    labels = whole["input_ids"].clone()
    labels[: len(processor([asked])["input_ids"])] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model is faster with one
    for _ in range(100):
        loss = model(**whole, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)
    folder = tmp_path_factory.mktemp("grounded")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    with serving(folder, tmp_path_factory.mktemp("site"), browser) as site:  # type: ignore[arg-type]
        yield site


def test_box_of_an_answer_is_drawn_where_it_is(grounded: Site, scene: Path) -> None:
    from PIL import Image

    tab = grounded.open()
    assert tab.answer(QUESTION, scene) == ANSWER
    picture = tab.page.locator("img.vl3-picture")
    picture.wait_for()
    assert picture.get_attribute("alt") == "scene.png with the boxes of the answer"
    data = (picture.get_attribute("src") or "").partition("base64,")[2]
    drawn = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    line = (255, 77, 79)  # of the first box
    for x, y in ((0.312, 0.5), (0.625, 0.5), (0.47, 0.625)):
        here = drawn.getpixel((round(x * drawn.width), round(y * drawn.height)))
        assert isinstance(here, tuple)
        assert max(abs(a - b) for a, b in zip(here, line, strict=True)) < 90, (x, y, here)
    assert tab.page.locator("[data-testid=bot]").bounding_box() is not None
    shown = picture.bounding_box()
    assert shown is not None
    assert 200 < shown["width"] <= 1300
    assert tab.faults == []
    tab.page.screenshot(path=str(scene.with_name("page.png")))
    tab.page.context.close()
