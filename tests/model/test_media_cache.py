from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import BadSampleError
from model import Processor, VideoLLaMA3
from model.config import preset
from model.media_cache import CachedMedium, MediaCache
from tests.model.clips import grey

TOKEN = 64 * 4
"""Bytes of a visual token: the width of `tiny`'s language model, in float32."""


@pytest.fixture(scope="module")
def model() -> VideoLLaMA3:
    return VideoLLaMA3(preset("tiny")).eval()


def _read(cache: MediaCache, *media: Any) -> list[CachedMedium]:
    parts = [{"type": "image", "image": medium} if not isinstance(medium, dict) else medium for medium in media]
    return Processor.tiny().prepare([{"role": "user", "content": parts}], cache.read)[1]


def _file(path: Path, level: int) -> str:
    """An image of 24 tokens."""
    Image.fromarray(grey(level, 84, 56)).save(path)
    return str(path)


def test_cached_tokens_equal_encoded_ones(model: VideoLLaMA3, tmp_path: Path) -> None:
    cache = MediaCache()
    file = _file(tmp_path / "a.png", 9)
    row = Processor.tiny()([{"role": "user", "content": [{"type": "image", "image": file}]}])
    with torch.no_grad():
        expected = model.projector(model.vision(row.pixel_values, row.grid_thw, row.merge_sizes))
    (encoded,) = cache.encode(model, _read(cache, file))
    (medium,) = _read(cache, file)
    assert medium.visual is not None
    assert torch.equal(medium.visual, encoded)
    assert torch.allclose(encoded, expected, atol=1e-6)
    assert not medium.patches.numel(), "it was not decoded"


def test_every_kind_of_source_is_recognised(model: VideoLLaMA3, tmp_path: Path) -> None:
    cache = MediaCache()
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(4):
        _file(folder / f"{number}.png", 50 * number)
    frames = np.stack([grey(level) for level in (1, 2)])
    sources = [
        _file(tmp_path / "a.png", 9),
        (folder / "1.png").read_bytes(),
        Image.fromarray(grey(77)),
        {"type": "video", "video": frames},
        {"type": "video", "video": str(folder)},
    ]
    assert all(medium.visual is None for medium in _read(cache, *sources))
    cache.encode(model, _read(cache, *sources))
    assert all(medium.visual is not None for medium in _read(cache, *sources))
    _file(folder / "3.png", 7)
    frames[1] = 200
    assert [medium.visual is None for medium in _read(cache, *sources)] == [False, False, False, True, True]


def test_same_image_is_encoded_once_in_a_prompt(model: VideoLLaMA3, tmp_path: Path) -> None:
    cache, patches = MediaCache(), list[int]()
    hook = model.vision.register_forward_pre_hook(lambda _module, inputs: patches.append(len(inputs[0])))
    file = _file(tmp_path / "a.png", 9)
    one, other = cache.encode(model, _read(cache, file, file))
    hook.remove()
    assert patches == [24]
    assert torch.equal(one, other)


def test_least_recently_used_is_evicted(model: VideoLLaMA3, tmp_path: Path) -> None:
    cache = MediaCache(max_bytes=2 * 24 * TOKEN + 200)  # and what is known of their files
    a, b, c = (_file(tmp_path / f"{level}.png", level) for level in (1, 2, 3))
    for file in (a, b, a, c):
        cache.encode(model, _read(cache, file))
    assert [medium.visual is not None for medium in _read(cache, a, b, c)] == [True, False, True]


def test_image_beyond_the_bound_evicts_nothing(model: VideoLLaMA3, tmp_path: Path) -> None:
    cache = MediaCache(max_bytes=30 * TOKEN)
    small = _file(tmp_path / "small.png", 1)
    Image.fromarray(grey(9, 140, 140)).save(tmp_path / "large.png")
    for file in (small, str(tmp_path / "large.png")):
        (tokens,) = cache.encode(model, _read(cache, file))
        assert tokens.isfinite().all()
    assert [m.visual is not None for m in _read(cache, small, str(tmp_path / "large.png"))] == [True, False]


def test_evicted_media_free_their_memory(model: VideoLLaMA3, tmp_path: Path) -> None:
    files = [_file(tmp_path / f"{level}.png", level) for level in range(5)]
    cache = MediaCache()
    for visual in cache.encode(model, _read(cache, *files)):
        assert visual.untyped_storage().nbytes() == 24 * TOKEN, "a view of all five would hold all five"


def test_vanished_file_is_an_error_of_the_user(model: VideoLLaMA3, tmp_path: Path) -> None:
    cache, file = MediaCache(), _file(tmp_path / "a.png", 1)
    cache.encode(model, _read(cache, file))
    Path(file).unlink()
    with pytest.raises(BadSampleError, match=r"cannot read .*a\.png"):
        _read(cache, file)


def test_threads_share_the_cache(model: VideoLLaMA3, tmp_path: Path) -> None:
    files = [_file(tmp_path / f"{level}.png", 20 * level) for level in range(6)]
    expected = [MediaCache().encode(model, _read(MediaCache(), file))[0] for file in files]
    cache = MediaCache(max_bytes=3 * 24 * TOKEN)

    def answer(number: int) -> bool:
        (tokens,) = cache.encode(model, _read(cache, files[number % 6]))
        return torch.equal(tokens, expected[number % 6])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(answer, range(120)))
