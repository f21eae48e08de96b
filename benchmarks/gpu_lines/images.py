"""Models of the pipeline that look at images: CLIP and the coarse captions, with random weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu_lines.measures import picture, seconds, spread
from gpu_lines.proof import Figure, Place

ROOT = Path(__file__).resolve().parents[2]


def vit_b_32(place: Place) -> Iterator[Figure]:
    yield from _clip(place, "ViT-B-32", batches=32)


def vit_l_14(place: Place) -> Iterator[Figure]:
    yield from _clip(place, "ViT-L-14", batches=12)


def _clip(place: Place, architecture: str, batches: int) -> Iterator[Figure]:
    """The stage `clip` on prepared images against a bare loop, and its embeddings against open_clip's in float32."""
    from filters.clip import ImageTower
    from filters.open_clip_encoder import OpenClipModel

    model = OpenClipModel.load(str(_encoder(place, architecture)), "clip")
    exact = replace(model, network=model.network.float(), dtype=torch.float32)
    tower = ImageTower(exact, draft=False)
    photographs = [picture(place.size(320, 80), number) for number in range(16)]
    prepared = [tower.prepare(photograph) for photograph in photographs]
    with torch.inference_mode():
        pixels = torch.stack([model.transform(photograph) for photograph in photographs]).to(model.device)
        truth = exact.network.encode_image(pixels, normalize=True).cpu().numpy()
    yield Figure("float32: 1 - cosine to open_clip, at most", _apart(_vectors(tower(prepared)), truth), most=1e-4)
    model.network.to(model.dtype)
    tower = ImageTower(model, draft=False)
    precision = str(model.dtype).removeprefix("torch.")
    apart = _apart(_vectors(tower(prepared)), truth)
    yield Figure(f"{precision}: 1 - cosine to open_clip in float32, at most", apart, most=1e-2)

    size = place.size(256, 8)
    work = [prepared * (size // len(prepared)) or prepared[:size]] * place.size(batches, 3)
    count = sum(map(len, work))
    bare = seconds(place, lambda: [_bare(model, batch) for batch in work], repeat=1, warm=1)
    with ThreadPoolExecutor(tower.calls) as threads:
        ours = seconds(place, lambda: list(threads.map(tower, work)), repeat=1, warm=1)
    resident = torch.from_numpy(np.stack(work[0])).to(model.device)
    alone = seconds(place, lambda: [_encode(model, resident) for _ in work], repeat=1, warm=1)
    yield Figure("images in a batch", len(work[0]))
    yield Figure("encoder alone, pixels on the device", count / alone, "images/s")
    yield Figure("bare loop", count / bare, "images/s")
    yield Figure("stage", count / ours, "images/s")
    yield Figure("stage's time by the bare loop's", ours / bare if place.cuda else None, most=1.1)


def _encoder(place: Place, architecture: str) -> Path:
    """Write a model folder of open_clip with random weights; a dry run's is smaller."""
    import open_clip
    from safetensors.torch import save_file

    shape = open_clip.get_model_config(architecture)
    if place.dry:
        vision = {"image_size": 64, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16}
        text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
        shape = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    network = open_clip.CLIP(**shape)
    spread(network)
    save_file(network.state_dict(), place.folder / "open_clip_model.safetensors")
    (place.folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": shape, "preprocess_cfg": {}}))
    return place.folder


def _bare(model: Any, batch: list[Any]) -> np.ndarray[Any, Any]:
    pixels = torch.from_numpy(np.stack(batch)).to(model.device)
    return np.asarray(_encode(model, pixels).float().cpu().numpy())


def _encode(model: Any, pixels: Tensor) -> Tensor:
    normalize = model.transform.transforms[-1]
    mean, std = (torch.tensor(x, device=model.device).view(1, 3, 1, 1) for x in (normalize.mean, normalize.std))
    with torch.inference_mode():
        scaled = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
        vectors: Tensor = model.network.encode_image(scaled.to(model.dtype), normalize=True)
        return vectors


def _vectors(table: Any) -> np.ndarray[Any, Any]:
    return np.stack(table["image_embedding"].to_numpy()).astype(np.float32)


def _apart(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    """Return the largest cosine distance of two vectors of an image. Stored ones are float16 and not quite unit."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float((1 - (ours * theirs).sum(1) / lengths).max())


def coarse(place: Place) -> Iterator[Figure]:
    """The stage `coarse_caption` on a BLIP-2 of 0.3 billion parameters, with a growing and with a static cache."""
    from captioners.coarse import CoarseCaption

    _blip2(place)
    said = {}
    for cache in ("dynamic", "static"):
        stage = CoarseCaption(model=str(place.folder), max_new_tokens=place.size(20, 4), cache_implementation=cache)
        captioner = stage.load()
        batch = [captioner.prepare(picture(320, number)) for number in range(place.size(64, 2))]
        said[cache] = captioner(batch)["coarse_caption"].to_pylist()
        taken = seconds(place, lambda captioner=captioner, batch=batch: captioner(batch), repeat=3, warm=1)
        yield Figure(f"{cache} cache", len(batch) / taken, "images/s")
    same = sum(a == b for a, b in zip(*said.values(), strict=True)) / len(said["static"])
    # In half precision two kernels round otherwise, and the likeliest of random words may change.
    yield Figure("equal captions", 100 * same, "%", least=place.size(50, 100))
    yield Figure("bytes of a prepared image", batch[0].nbytes)


def _blip2(place: Place) -> None:
    """Write a BLIP-2 with random weights: a dry run's is the tests', a GPU's has the widths of BLIP-base."""
    from transformers import AutoProcessor, Blip2Config, Blip2ForConditionalGeneration

    spec = importlib.util.spec_from_file_location("checkpoints", ROOT / "tests" / "checkpoints.py")
    assert spec
    assert spec.loader
    checkpoints = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checkpoints)
    checkpoints.save_blip2(place.folder)
    if place.dry:
        return
    config: Any = Blip2Config.from_pretrained(place.folder)
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    config.vision_config.update({**sizes, "intermediate_size": 3072, "image_size": 224, "patch_size": 14})
    config.qformer_config.update({**sizes, "intermediate_size": 3072, "encoder_hidden_size": 768})
    config.text_config.update({**sizes, "ffn_dim": 3072, "word_embed_proj_dim": 768})
    network = Blip2ForConditionalGeneration(config)
    spread(network)
    network.save_pretrained(place.folder)
    processor: Any = AutoProcessor.from_pretrained(place.folder)
    processor.image_processor.size = {"height": 224, "width": 224}
    processor.save_pretrained(place.folder)
