"""CLIP through open_clip from a small local checkpoint: the same vectors as open_clip's own transform and towers."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image

from core.images import decode
from filters.clip import Clip, _stacked
from filters.clip_text import ClipText
from filters.open_clip_encoder import _named_weights, dimensions
from manifests.embeddings import encoder_of
from tests.filters.vectors import check_tolerance, vectors
from tests.pipeline.execution.pipelines import compute_images


def encoded(photo: Image.Image, format_: str, **options: object) -> bytes:
    data = io.BytesIO()
    photo.save(data, format_, **options)
    return data.getvalue()


@pytest.fixture(scope="module")
def photos(photographs: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in photographs]


def test_exact_preparation_equals_the_open_clip_transform(tiny_clip: Path, photos: list[bytes]) -> None:
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in photos])
        theirs = network.eval().encode_image(pixels, normalize=True).numpy()
    stage = Clip(encoder=str(tiny_clip), draft=False, precision="float32")
    tower = stage.load()
    assert tower.side is None
    facts = tower([tower.prepare(decode(data)) for data in photos])
    assert facts.select(stage.writes.names).schema.equals(stage.writes)
    ours = vectors(facts)
    assert (ours * theirs).sum(1).min() > 0.9995, "what rounding to float16 costs"
    between = (theirs @ theirs.T)[np.triu_indices(len(theirs), 1)]
    assert between.mean() < 0.99, "else every picture is like every other"


def test_bfloat16_image_vectors_are_within_the_tolerance(tiny_clip: Path, photos: list[bytes]) -> None:
    exact, rounded = (Clip(encoder=str(tiny_clip), precision=kind).load() for kind in ("float32", "bfloat16"))
    images = [exact.prepare(decode(data)) for data in photos]
    check_tolerance(*(vectors(tower(images)) for tower in (exact, rounded)))
    assert (exact.provenance["dtype"], rounded.provenance["dtype"]) == ("float32", "bfloat16")


def test_large_jpegs_are_decoded_at_twice_the_model_size_or_more(tiny_clip: Path) -> None:
    tower = Clip(encoder=str(tiny_clip)).load()
    assert tower.side == 128
    large = encoded(Image.effect_noise((1200, 900), 90).convert("RGB"), "JPEG")
    assert decode(large, tower.side).size == (300, 225), "an eighth would be 150×113"
    assert decode(large).size == (1200, 900)
    assert tower.prepare(decode(large, tower.side)).shape == (64, 64, 3)


def test_provenance_names_the_weights_and_columns_the_encoder(tiny_clip: Path) -> None:
    import hashlib

    file = tiny_clip / "open_clip_model.safetensors"
    expected = hashlib.sha256(hashlib.sha256(file.read_bytes()).digest()).hexdigest()
    assert Clip(encoder=str(tiny_clip)).load().provenance["weights"] == expected
    field = Clip(encoder="ViT-L-14/openai").writes.field("image_embedding")
    assert (encoder_of(field), field.type) == ("ViT-L-14/openai", pa.list_(pa.float16(), 768))


def test_weights_of_openai_use_quick_gelu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its name alone open_clip 3 builds them with another activation, and only warns."""
    from safetensors.torch import save_file

    with torch.device("meta"):
        model = open_clip.create_model("ViT-B-32-quickgelu", device="meta")
    weights = tmp_path / "open_clip_model.safetensors"
    save_file({k: torch.zeros(v.shape, dtype=v.dtype) for k, v in model.state_dict().items()}, weights)
    for where in ("open_clip.factory", "open_clip"):  # the hub is not there: its file is
        monkeypatch.setattr(f"{where}.download_pretrained", lambda *a, **k: str(weights))
    monkeypatch.setattr("filters.open_clip_encoder.hub_file", lambda *a, **k: "")
    tower = Clip(encoder="ViT-B-32/openai").load()
    block = tower._model.network.visual.transformer.resblocks[0]
    assert type(block.mlp.gelu).__name__ == "QuickGELU"


def test_model_that_gives_nan_is_an_error_of_the_row(tiny_clip: Path) -> None:
    tower = Clip(encoder=str(tiny_clip)).load()
    torch.nn.init.constant_(tower._model.network.visual.ln_post.weight, float("nan"))
    facts = tower([np.zeros((64, 64, 3), np.uint8)])
    assert facts["error"].to_pylist() == ["broken embedding: not finite or zero"]
    assert facts["image_embedding"].null_count == 1


def test_text_tower_chooses_the_float_type(tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip has encoders with an mT5, which exceeds float16."""
    import filters.open_clip_encoder as encoder

    class ChosenError(Exception):
        pass

    def chosen(model_type: str, precision: str) -> None:
        raise ChosenError(model_type)

    monkeypatch.setattr(encoder, "device_and_dtype", chosen)
    with pytest.raises(ChosenError, match=r"^$"):
        Clip(encoder=str(tiny_clip)).load()
    clip, tower = Path(shutil.copytree(tiny_clip, tmp_path / "clip")), tmp_path / "tower"
    tower.mkdir()
    (tower / "config.json").write_text(json.dumps({"model_type": "mt5"}))
    settings = json.loads((clip / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"] |= {"hf_model_name": str(tower)}
    (clip / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(ChosenError, match=r"^mt5$"):
        Clip(encoder=str(clip)).load()


def test_next_batch_is_stacked_while_the_device_encodes(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:02}.png" for number in range(18)]
    (tmp_path / "pool").mkdir()
    for number, name in enumerate(names):
        Image.effect_noise((70 + number, 66), 90).convert("RGB").save(tmp_path / "pool" / name)
    stage = Clip(encoder=str(tiny_clip))
    tower = stage.load()
    expected = compute_images(tmp_path, stage, tower, names, batch_size=4).column("image_embedding").to_pylist()
    stack, encode = np.stack, tower._model.network.encode_image
    changed, stacked, encoded, running = threading.Condition(), [0], [0], [0]

    def counted_stack(*arguments: Any, **named: Any) -> Any:
        result = stack(*arguments, **named)
        with changed:
            stacked[0] += 1
            changed.notify_all()
        return result

    def slow_encode(pixels: torch.Tensor) -> torch.Tensor:
        with changed:
            running[0] += 1
            assert running[0] == 1, "the model's threads take turns"
            next_ = min(5, encoded[0] + 2)
            assert changed.wait_for(lambda: stacked[0] >= next_, 10), "the next batch waits for the device"
        vectors: torch.Tensor = encode(pixels)
        with changed:
            running[0] -= 1
            encoded[0] += 1
        return vectors

    monkeypatch.setattr(np, "stack", counted_stack)
    monkeypatch.setattr(tower._model.network, "encode_image", slow_encode)
    rows = compute_images(tmp_path, stage, tower, names, batch_size=4)
    assert rows.column("image_embedding").to_pylist() == expected
    assert (stacked, encoded) == ([5], [5])


def test_batch_after_a_failed_one_is_encoded(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = Clip(encoder=str(tiny_clip)).load()
    images = [np.zeros((64, 64, 3), np.uint8)]

    def no_memory(pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as broken:
        broken.setattr(tower._model.network, "encode_image", no_memory)
        for _ in range(tower.calls + 1):
            with pytest.raises(torch.OutOfMemoryError):
                tower(images)
    assert tower(images).num_rows == 1


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_batch_for_a_gpu_is_stacked_in_pinned_memory(
    device: str, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, asked = torch.empty, []

    def counted(*arguments: Any, pin_memory: bool, **named: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return empty(*arguments, **named)

    monkeypatch.setattr(torch, "empty", counted)
    images = [np.full((2, 2, 3), number, np.uint8) for number in range(3)]
    batch = _stacked(images, torch.device(device))
    assert asked == [pinned]
    assert batch.dtype == torch.uint8
    assert batch.numpy().tolist() == [image.tolist() for image in images]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("/nowhere/clip", "it has no open_clip_config.json; give a"),
        ("ViT-L-14/opnai", "there are no weights 'opnai' for ViT-L-14, only openai, "),
        ("ViT-L-15/openai", "there are no weights 'openai' for ViT-L-15, only none"),
        ("ViT-B-32//weights.safetensors", "not ARCHITECTURE/WEIGHTS"),
        ("clip", "not ARCHITECTURE/WEIGHTS, such as ViT-L-14/openai"),
        ("ViT-L-14/openai", "hf download timm/vit_large_patch14_clip_224.openai"),
        ("hf-hub:nobody/nothing", "hf download nobody/nothing"),
    ],
)
def test_missing_model_is_a_one_line_error_at_once(encoder: str, message: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=message) as refused:
        Clip(encoder=encoder).check_available()
    assert "\n" not in str(refused.value)
    assert encoder.removeprefix("hf-hub:") in str(refused.value) or "timm/" in str(refused.value)
    assert time.perf_counter() - begin < 10


def test_check_of_models_does_not_import_torch(tiny_clip: Path) -> None:
    program = f"""
import sys
from filters.clip import Clip
Clip(encoder={str(tiny_clip)!r}).check_available()
try:
    Clip(encoder="ViT-L-14/openai").check_available()
except ValueError as error:
    print(error, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("hf download timm/vit_large_patch14_clip_224.openai False\n")


def test_named_weights_are_those_of_open_clip() -> None:
    named, before = _named_weights(), sys.modules["safetensors.torch"]
    assert named is not open_clip.pretrained
    for architecture, weights in open_clip.list_pretrained():
        assert named.get_pretrained_cfg(architecture, weights) == open_clip.get_pretrained_cfg(architecture, weights)
    assert sys.modules["safetensors.torch"] is before


def test_named_weights_hide_no_module_from_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = sys.modules["safetensors.torch"], []

    class Watch:
        def find_spec(self, name: str, *_: object) -> None:
            if name.startswith("_open_clip_named_weights."):
                seen.append(sys.modules.get("safetensors.torch"))

    for name in ("constants", "version"):
        monkeypatch.delitem(sys.modules, f"_open_clip_named_weights.{name}", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
    _named_weights.__wrapped__()
    assert len(seen) >= 2
    assert all(module is before for module in seen)


def test_broken_model_is_a_one_line_error(tiny_clip: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_clip, tmp_path / "broken"))
    weights = broken / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"open_clip_model\.safetensors is cut off"):
        Clip(encoder=str(broken)).check_available()
    weights.unlink()
    with pytest.raises(ValueError, match="the folder has no open_clip_model"):
        Clip(encoder=str(broken)).check_available()
    config = broken / "open_clip_config.json"
    config.write_text(config.read_text().replace('"embed_dim": 64', '"embed_dim": 32'))
    shutil.copy(tiny_clip / weights.name, weights)
    with pytest.raises(ValueError, match=r"clip: .*broken cannot be loaded \(RuntimeError: .*size mismatch"):
        Clip(encoder=str(broken)).load()


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 900), (1, 1)])
def test_long_strip_takes_little_memory(tiny_clip: Path, size: tuple[int, int]) -> None:
    tower = Clip(encoder=str(tiny_clip)).load()
    tracemalloc.start()
    assert tower.prepare(Image.new("RGB", size, "red")).shape == (64, 64, 3)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@pytest.mark.gpu
def test_cuda_equals_the_cpu(tiny_clip: Path, photos: list[bytes]) -> None:
    """Half precision on the device, against the float32 reference of open_clip on the CPU."""
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in photos])
        theirs = network.eval().encode_image(pixels, normalize=True).numpy()
    tower = Clip(encoder=str(tiny_clip), draft=False).load()
    assert tower._model.device.type == "cuda"
    assert (vectors(tower([tower.prepare(decode(d)) for d in photos])) * theirs).sum(1).min() > 0.995


def test_dimensions_come_from_the_configuration(tiny_clip: Path) -> None:
    assert (dimensions(str(tiny_clip)), dimensions("ViT-B-32/laion2b_s34b_b79k"), dimensions("ViT-L-14/openai")) == (
        64,
        512,
        768,
    )


def test_model_files_are_where_open_clip_loads_them(tiny_clip: Path) -> None:
    named = "ViT-B-32/laion2b_s34b_b79k"
    assert Clip(encoder=named).model_files == {named: "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"}
    folder = f"local-dir:{tiny_clip}"
    assert ClipText(encoder=folder).model_files == {folder: str(tiny_clip)}
