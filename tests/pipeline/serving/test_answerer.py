from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from model import Processor, VideoLLaMA3
from model.config import preset
from pipeline.serving.answerer import Answerer
from pipeline.serving.chat_request import ChatRequest
from tests.model.clips import grey, write
from tests.model.oracles import widen


def test_requests_share_encoded_media(tmp_path: Path) -> None:
    """Each request brings its film as a file of its own."""
    model = VideoLLaMA3(preset("tiny"))
    widen(model)
    answerer = Answerer(model.eval(), Processor.tiny(), ["mine"], max_new_tokens=8)
    encoded: list[int] = []

    def count(_module: Any, inputs: Any) -> None:
        encoded.append(len(inputs[0]))

    image = {"type": "image", "image": Image.fromarray(grey(90))}

    def answer(number: int) -> str:
        film = write(tmp_path / f"{number}.mp4", [k / 5 for k in range(10)])
        parts = [image, {"type": "video", "video": str(film)}, "What?"]
        return "".join(answerer.answer(ChatRequest("mine", [], {"role": "user", "content": parts})).pieces())

    hook = model.vision.register_forward_pre_hook(count)
    first = answer(1)
    assert len(encoded) == 1
    assert answer(2) == first
    hook.remove()
    assert len(encoded) == 1
