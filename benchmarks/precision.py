"""What bfloat16 saves on this CPU, and how far it moves embeddings and verdicts.

Speed: CPU seconds of a model in float32 and in bfloat16, in turns. The networks have the published shapes (captioners
with fewer layers) and random weights: speed does not depend on them. Captioners: the vision tower and the decoding of
30 tokens, one after the other.

Accuracy, on the demo's photographs (`make demo` gathers them), float32 against bfloat16:

* CLIP ViT-B/32 with random weights (`--encoder` takes real ones), by the stages `clip` and `clip_text`. With random
  weights all embeddings are nearly alike, so any two have a large cosine. So the cosine is given after the subtraction
  of the mean embedding too, and beside it the one of two different images.
* ConSE's networks with their real weights: EfficientNet-Lite0 (`conse`) and all-MiniLM-L6-v2 (`conse_text`).

Verdicts are counted that differ: the recipes' `similarity: {top: 0.7}` and `aesthetic: {min: 4.5}` (with random CLIP
a random linear head, whose scores have the mean 4.77 and the deviation 0.7), and pairs on another side of the cosine
0.96 (`duplicates`).

    .venv/bin/python benchmarks/precision.py
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from clip_throughput import checkpoint
from common import PHOTOGRAPHS, machine
from turns import in_turns, markdown, serve

CASES = (
    *("ViT-B-32 images", "ViT-B-32 texts", "ViT-L-14 images", "BLIP images", "BLIP tokens"),
    *("OPT tokens, 1 row", "OPT tokens, 16 rows", "Qwen2 tokens, 1 row", "Qwen2 tokens, 16 rows"),
    *("EfficientNet-Lite0", "all-MiniLM-L6-v2"),
)
TYPES = ("float32", "bfloat16")
TEXTS = ["a photo of a dog in the snow", "two red buses", "the sea at night", "a plate of fruit on a wooden table"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", help="a CLIP for the accuracy (default: ViT-B/32 with random weights)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="all by default; none: accuracy")
    parser.add_argument("--only", help="serve this float type and case")
    args = parser.parse_args()
    if args.only:
        dtype, _, case = args.only.partition(" ")
        serve(work(case, dtype))
        return
    print(machine(("torch", "transformers", "open_clip_torch")))
    print(
        markdown(
            ("model", "float32, CPU s", "bfloat16, CPU s", "times as fast"), [speed(c, args.repeat) for c in args.cases]
        )
    )
    columns = (
        "embeddings",
        "cosine: mean, worst",
        "centred: mean, worst",
        "of two images, centred",
        "verdicts that differ",
    )
    print(markdown(columns, [clip_accuracy(args.encoder or checkpoint("ViT-B-32")), conse_accuracy()]))


def speed(case: str, rounds: int) -> tuple[str, ...]:
    timed = in_turns(__file__, [f"{dtype} {case}" for dtype in TYPES], rounds + 1)[1:]
    seconds = [[one["core_seconds"] for one in each] for each in timed]
    ratio = statistics.median(exact / half for exact, half in seconds)
    exact, half = (statistics.median(each) for each in zip(*seconds, strict=True))
    return case, f"{exact:.2f}", f"{half:.2f}", f"{ratio:.2f}"


def work(case: str, dtype: str) -> Callable[[], None]:
    """Return a function that runs a model once, with one thread."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = _network(case, getattr(torch, dtype))

    def once() -> None:
        with torch.inference_mode():
            run()

    return once


def _network(case: str, dtype: Any) -> Callable[[], object]:
    import open_clip
    import torch

    from filters.unpadded_texts import encode_tokens

    name, _, what = case.partition(" ")
    if name.startswith("ViT"):
        clip = open_clip.create_model(name).eval().to(dtype)
        pixels, tokens = torch.randn(8, 3, 224, 224).to(dtype), open_clip.get_tokenizer(name)(TEXTS * 4)
        if what == "images":
            return lambda: clip.encode_image(pixels)
        return lambda: encode_tokens(clip, tokens, torch.device("cpu"))
    if name == "BLIP":
        return _blip(what, dtype)
    if name in ("OPT", "Qwen2"):
        return _language(name, 16 if "16" in what else 1, dtype)
    if name == "EfficientNet-Lite0":
        from efficientnet_lite_pytorch import EfficientNet

        network, images = EfficientNet.from_name("efficientnet-lite0").eval().to(dtype), torch.randn(4, 3, 224, 224)
        return lambda: network(images.to(dtype))
    from filters.sentence_encoder import SentenceEncoder

    sentences = SentenceEncoder("benchmark")
    sentences._network.to(dtype)
    return lambda: sentences._network(**sentences._tokenizer(TEXTS * 4, padding=True, return_tensors="pt"))


def _blip(what: str, dtype: Any) -> Callable[[], object]:
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration

    blip = BlipForConditionalGeneration(BlipConfig(vision_config={"image_size": 384})).eval().to(dtype)
    if what == "images":
        pixels = torch.randn(2, 3, 384, 384).to(dtype)
        return lambda: blip.vision_model(pixels)
    seen, start = torch.randn(4, 577, 768).to(dtype), torch.full((4, 1), 30522)
    return lambda: _thirty(blip.text_decoder, start, encoder_hidden_states=seen)


def _language(name: str, rows: int, dtype: Any) -> Callable[[], object]:
    """OPT with a width of 1,024, and Qwen2-0.5B: 8 layers each, after a prompt of 64 tokens."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM, Qwen2Config, Qwen2ForCausalLM

    if name == "OPT":
        widths = {"hidden_size": 1024, "word_embed_proj_dim": 1024, "ffn_dim": 4096, "num_attention_heads": 16}
        network: Any = OPTForCausalLM(OPTConfig(**widths, num_hidden_layers=8))
    else:
        widths = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}
        network = Qwen2ForCausalLM(Qwen2Config(**widths, num_hidden_layers=8))
    network, prompt = network.eval().to(dtype), torch.randint(5, 5000, (rows, 64))
    return lambda: _thirty(network, prompt)


def _thirty(network: Any, prompt: Any, **more: Any) -> object:
    import torch

    mask = torch.ones_like(prompt)
    how = {"max_new_tokens": 30, "min_new_tokens": 30, "do_sample": False}
    return network.generate(input_ids=prompt, attention_mask=mask, **how, **more)


def clip_accuracy(encoder: str) -> tuple[str, ...]:
    import pyarrow as pa
    from draft import embed

    from filters.clip import Clip
    from filters.clip_text import ClipText
    from manifests.embeddings import to_matrix

    images, texts = [], []
    for dtype in TYPES:
        tower = Clip(encoder=encoder, precision=dtype).load()
        images.append(to_matrix(embed(tower, [tower.prepare(photo) for photo in photographs()]))[0])
        captions = [TEXTS[number % len(TEXTS)] for number in range(len(images[0]))]
        batch = pa.table({"coarse_caption": captions, "alt_text": pa.nulls(len(captions), pa.string())})
        texts.append(to_matrix(ClipText(encoder=encoder, precision=dtype).load()(batch)["text_embedding"])[0])
    return ("clip", *moved(*images), flips(images, texts))


def conse_accuracy() -> tuple[str, ...]:
    import torch
    from draft import embed

    from filters.conse import Conse
    from manifests.embeddings import to_matrix

    exact, half = Conse().load(), Conse().load()
    network = half._network.to(torch.bfloat16)
    half._network = lambda pixels: network(pixels.to(torch.bfloat16)).float()
    inputs = [exact.prepare(photo) for photo in photographs()]
    images = [to_matrix(embed(facts, inputs))[0] for facts in (exact, half)]
    labels = [facts(inputs)["label"].to_pylist() for facts in (exact, half)]
    texts = [exact._classes[np.arange(len(inputs)) % 1000] - exact._mean] * 2
    other = sum(one != two for one, two in zip(*labels, strict=True))
    return ("conse, real weights", *moved(*images), f"{flips(images, texts)}; {other} labels")


def photographs() -> list[Any]:
    from core.images import decode

    return [decode(path.read_bytes()) for path in sorted(PHOTOGRAPHS.iterdir())]


def moved(exact: Any, half: Any) -> tuple[str, ...]:
    """The cosine of each image's two embeddings; both again minus the mean; and the mean cosine of two images."""
    centred = unit(exact - exact.mean(0)), unit(half - exact.mean(0))
    both = [(one * two).sum(1) for one, two in ((exact, half), centred)]
    between = (centred[0] @ centred[0].T)[np.triu_indices(len(exact), 1)]
    return (*(f"{cosines.mean():.5f}, {cosines.min():.5f}" for cosines in both), f"{np.abs(between).mean():.2f}")


def flips(images: Sequence[Any], texts: Sequence[Any]) -> str:
    """How many verdicts differ between float32 and bfloat16, at the recipes' thresholds."""
    similarity = [np.einsum("nd,nd->n", image, unit(text)) for image, text in zip(images, texts, strict=True)]
    top = [values >= np.sort(values)[round(0.3 * len(values))] for values in similarity]
    head = np.random.default_rng(0).normal(size=images[0].shape[1])
    raw = [image @ head for image in images]
    scores = [4.77 + 0.7 * (values - raw[0].mean()) / raw[0].std() for values in raw]
    pairs = [(image @ image.T)[np.triu_indices(len(image), 1)] > 0.96 for image in images]
    differ = [int((one != two).sum()) for one, two in (top, [score >= 4.5 for score in scores], pairs)]
    rows, count = len(images[0]), len(pairs[0])
    return f"top 0.7: {differ[0]} of {rows}, min 4.5: {differ[1]} of {rows}, pairs: {differ[2]} of {count:,}"


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
