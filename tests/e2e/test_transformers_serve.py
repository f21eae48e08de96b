"""What `save_pretrained` writes is served by `transformers serve`: another program reads it and answers over HTTP."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from captioners.engines.server_process import start_server
from model import Processor, VideoLLaMA3
from model.config import preset
from tests.model.oracles import widen

pytestmark = pytest.mark.slow

TOKENS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("served")
    model = VideoLLaMA3(preset("tiny"))
    widen(model)
    model.save_pretrained(parent)
    Processor.tiny().save_pretrained(parent)
    return parent


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    program = Path(sys.executable).with_name("transformers")
    served = start_server(
        f"{program} serve {{model}} --host 127.0.0.1 --port {{port}} --device cpu", str(folder), 120, "test"
    )
    yield served.url
    served.stop()


def _picture(number: int) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((90 + 30 * number, 120)).save(data, "PNG")
    return data.getvalue()


def _ask(url: str, folder: Path, content: Any) -> dict[str, Any]:
    message = {"role": "user", "content": content}
    body = {"model": str(folder), "messages": [message], "max_tokens": TOKENS, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{url}/chat/completions", json.dumps(body).encode(), headers), timeout=60) as answer:
        answered: dict[str, Any] = json.load(answer)
    return answered


def _expected(folder: Path, content: Any) -> tuple[str, int]:
    """Our own answer, and the tokens of our prompt."""
    model, processor = (kind.from_pretrained(folder) for kind in (VideoLLaMA3, Processor))
    row = processor([{"role": "user", "content": content}])
    return processor.decode(model.generate(**row, max_new_tokens=TOKENS)[0]), len(row["input_ids"])


def test_transformers_serve_answers_about_images_equally(url: str, folder: Path) -> None:
    answers = set()
    for number in range(4):
        data = _picture(number)
        link = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        answer = _ask(
            url, folder, [{"type": "image_url", "image_url": {"url": link}}, {"type": "text", "text": "What is this?"}]
        )
        text, prompt = _expected(folder, [{"type": "image", "image": data}, "What is this?"])
        assert answer["choices"][0]["message"]["content"] == text
        assert answer["usage"] == {
            "prompt_tokens": prompt,
            "completion_tokens": TOKENS,
            "total_tokens": prompt + TOKENS,
        }
        answers.add(text)
    assert len(answers) == 4  # else the image might have been left out


def test_transformers_serve_answers_texts_equally(url: str, folder: Path) -> None:
    answer = _ask(url, folder, "What is VideoLLaMA?")
    assert answer["choices"][0]["message"]["content"] == _expected(folder, "What is VideoLLaMA?")[0]
