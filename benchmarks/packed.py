"""Packed rows in training: forward and backward against transformers' `VideoLlama3ForConditionalGeneration`.

Same weights, same row, float32: samples of 512 tokens behind one another, each an image of 12 x 16 patches (192), a
question, and an answer of 128 tokens that is learned. transformers is told of samples by position ids that restart,
without attention mask and cache, the one way in which it keeps them apart; it makes a dense mask of them. The losses
must be equal to 1e-5.

* the preset `tiny`, and a model of 30 M parameters, 4,096 tokens: time and peak memory. Target: time ratio ≤ 0.7;
* 2,048 to 8,192 tokens: time per token, which ought not to grow.

Each variant runs in a process of its own, in turns; peak memory is measured apart from time.

    .venv/bin/python benchmarks/packed.py
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from typing import Any

from common import machine, verdict
from turns import EXACT, in_turns, markdown, serve

TARGET = 0.7
SAMPLE, GRID, ANSWER = 512, (1, 12, 16), 128
SIZES = ("tiny", "30m")
TOKENS = (2048, 4096, 8192)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", help="serve this variant, size and number of tokens")
    args = parser.parse_args()
    if args.only:
        who, size, tokens = args.only.split()
        serve(work(who, size, int(tokens)))
        return
    results: dict[str, Any] = {"machine": machine(("torch", "transformers"))}
    for size in SIZES:
        for tokens in TOKENS:
            results[f"{size} {tokens}"] = measure(size, tokens, args.repeat)
    if args.json:
        print(json.dumps(results, indent=2))
        return
    columns = (
        *("model", "tokens", "ours, s", "µs a token", "transformers', µs a token", "time ratio", "target"),
        *("ours, MiB", "memory ratio", "loss differs by"),
    )
    rows = [row(size, tokens, results[f"{size} {tokens}"]) for size in SIZES for tokens in TOKENS]
    print(f"{results['machine']}\n\n{markdown(columns, rows)}")


def measure(size: str, tokens: int, rounds: int) -> dict[str, Any]:
    works = [f"{who} {size} {tokens}" for who in ("ours", "theirs")]
    timed = in_turns(__file__, works, rounds + 1)[1:]
    held = in_turns(__file__, works, 1, environment=EXACT)
    for ours, theirs in timed + held:
        if not math.isclose(ours["result"], theirs["result"], rel_tol=1e-5):
            raise SystemExit(f"{size}, {tokens} tokens: losses {ours['result']} and {theirs['result']}")
    return {
        "seconds": [[one["seconds"] for one in both] for both in timed],
        "mib": [one["mib"] for one in held[0]],
        "losses": [one["result"] for one in held[0]],
    }


def row(size: str, tokens: int, results: dict[str, Any]) -> tuple[str, ...]:
    ours, theirs = (statistics.median(seconds) for seconds in zip(*results["seconds"], strict=True))
    ratios = [one / other for one, other in results["seconds"]]
    ratio = statistics.median(ratios)
    loss, expected = results["losses"]
    return (
        size,
        f"{tokens:,}",
        f"{ours:.2f}",
        f"{ours / tokens * 1e6:.0f}",
        f"{theirs / tokens * 1e6:.0f}",
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        verdict(ratio, TARGET) if tokens == 4096 else "",
        f"{results['mib'][0]:.0f}",
        f"{results['mib'][0] / results['mib'][1]:.2f}",
        f"{abs(loss / expected - 1):.0e}",
    )


def config(size: str) -> Any:
    from model.config import ModelConfig, VisionConfig, preset

    tiny = preset("tiny")
    if size == "tiny":
        return tiny
    shape = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
    return ModelConfig(
        vision=VisionConfig(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4),
        language={**tiny.language, **shape, "vocab_size": 4096},
        image_token_id=tiny.image_token_id,
        video_token_id=tiny.video_token_id,
    )


def work(who: str, size: str, tokens: int) -> Any:
    """One variant, ready to run one row forward and backward; it gives the loss."""
    import torch

    model, model_inputs = build(who, config(size)), inputs(who, tokens, config(size))

    def run() -> float:
        model.zero_grad()
        loss = model(**model_inputs).loss
        loss.backward()
        return float(loss.detach())

    model.train()
    torch.set_grad_enabled(True)
    return run


def inputs(who: str, tokens: int, shape: Any) -> dict[str, Any]:
    import torch

    dice = torch.Generator().manual_seed(0)
    samples, visual = tokens // SAMPLE, math.prod(GRID)
    ids = torch.randint(0, 256, (samples, SAMPLE), generator=dice)
    ids[:, 8 : 8 + visual] = shape.image_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -ANSWER:] = ids[:, -ANSWER:]
    pixels = torch.rand(samples * visual, 588, generator=dice) * 2 - 1
    grids, ones = torch.tensor([GRID] * samples), torch.ones(samples, dtype=torch.long)
    if who == "ours":
        return {
            "input_ids": ids.flatten(),
            "labels": labels.flatten(),
            "segment_lengths": ones * SAMPLE,
            "pixel_values": pixels,
            "grid_thw": grids,
            "merge_sizes": ones,
        }
    return {
        "input_ids": ids.reshape(1, -1),
        "labels": labels.reshape(1, -1),
        "position_ids": torch.arange(SAMPLE).repeat(samples)[None],
        "attention_mask": None,
        "use_cache": False,
        "pixel_values": pixels,
        "image_grid_thw": grids,
        "image_merge_sizes": ones,
    }


def build(who: str, shape: Any) -> Any:
    """A model of either kind, of that configuration, with the weights that the seed gives ours."""
    import tempfile

    import torch

    from model.videollama3 import VideoLLaMA3

    torch.manual_seed(0)
    ours = VideoLLaMA3(shape)
    if who == "ours":
        return ours
    from transformers import VideoLlama3ForConditionalGeneration

    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        return VideoLlama3ForConditionalGeneration.from_pretrained(folder)


if __name__ == "__main__":
    main()
