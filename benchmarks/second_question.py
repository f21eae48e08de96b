"""The first token of a second question over a film, against that of the first question.

A film of 60 s at one frame per second, and a model of about 30 M parameters with random weights. Each round is a new
conversation: the first question decodes and encodes the film, the second continues. The time is that from the question
to the first token, with reading of the file. Target: median of the ratios ≤ 0.15.

    .venv/bin/python benchmarks/second_question.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

from common import machine, report, spread, verdict

SECONDS, RATE = 60, 10
WIDTH, HEIGHT = 320, 240
TARGET = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(("torch", "transformers", "av"))}
    with tempfile.TemporaryDirectory() as folder:
        film = write_film(Path(folder) / "film.mp4")
        model = build()
        rounds = [converse(model, film) for _ in range(args.repeat)]
    first, second = ([one[name] for one in rounds] for name in ("first", "second"))
    ratios = [one["second"] / one["first"] for one in rounds]
    results |= {"rounds": rounds, "ratio": statistics.median(ratios), "target": TARGET}
    known = f"{rounds[0]['reused']:,} of {rounds[0]['prompt']:,}"
    rows = [
        ("first question", spread(first), "", ""),
        ("second question", spread(second), known, f"{spread(ratios)} {verdict(results['ratio'], TARGET)}"),
    ]
    report(results, ("", "first token, s", "tokens known", "ratio"), rows, args.json)


def build() -> Any:
    """Return a model of 30 M parameters, half of them the encoder's."""
    import torch

    from model import VideoLLaMA3
    from model.config import preset

    torch.manual_seed(0)
    tiny = preset("tiny")
    vision = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 6}
    language = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}
    config = tiny.model_copy(
        update={"vision": tiny.vision.model_copy(update=vision), "language": {**tiny.language, **language}}
    )
    return VideoLLaMA3(config).eval()


def write_film(path: Path) -> Path:
    """Write a film of a coloured square that moves over noise, so that pruning keeps all."""
    import av
    import numpy as np

    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for number in range(SECONDS * RATE):
            pixels = random.integers(0, 120, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            left = number % (WIDTH - 60)
            pixels[90:150, left : left + 60] = (250, 40, number % 250)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def converse(model: Any, film: Path) -> dict[str, Any]:
    """Ask two questions in a new conversation. Return the seconds until the first token of each answer."""
    from model import Processor
    from model.chat import Chat

    chat = Chat(model, Processor.tiny(), max_new_tokens=8)
    first = first_token(chat, "What happens?", [{"type": "video", "video": str(film)}])
    second = first_token(chat, "Of what colour is it?", [])
    assert chat.stats is not None
    return {"first": first, "second": second, "reused": chat.stats.reused_tokens, "prompt": chat.stats.prompt_tokens}


def first_token(chat: Any, question: str, media: list[Any]) -> float:
    """Return the seconds from a question to its first token: with reading, which `first_s` leaves out."""
    begin = time.perf_counter()
    answer = chat.ask(question, media)
    prepared = time.perf_counter() - begin
    for _ in answer:
        pass
    return float(prepared + chat.stats.first_s)


if __name__ == "__main__":
    main()
