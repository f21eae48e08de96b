"""Encode each image and video once: keep its visual tokens for the next question, in any conversation.

M merged tokens of an image or video, K of them kept after pruning, W width of the language model
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.media import MediaLoader, Medium
from model.sizes import Size

if TYPE_CHECKING:
    from model.videollama3 import VideoLLaMA3

_hash = partial(hashlib.blake2b, digest_size=16)
_NO_PATCHES = torch.zeros(0, 0, dtype=torch.uint8)


@dataclass(frozen=True, eq=False)
class CachedMedium(Medium):
    """One image or video, or a piece of a stream.

    Attributes:
        identity: Hash of all that its visual tokens depend on, but for the model.
        visual: Its visual tokens (K, W), on the host; then it has no patches. None: they must be encoded from these.
    """

    identity: bytes
    visual: Tensor | None


class MediaCache:
    """An LRU cache of encoded media, for conversations with one model whose weights do not change.

    Files are recognised by their content, the planned size and the settings: a cached one is not decoded. Pixels that
    are in memory already are recognised once they are resized. Threads may share it.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        """Hold at most `max_bytes` bytes on the host. A film of 16,384 tokens takes 50 MB with the 2B in bfloat16."""
        self._max_bytes, self._bytes = max_bytes, 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, loader: MediaLoader, size: Size) -> list[CachedMedium]:
        """Return the medium of each part of a loader, as `MediaLoader.read` does, but encoded ones without patches.

        Raises:
            BadSampleError: It cannot be read.
        """
        source = _source_key(loader, size)
        if source is not None and (known := self._get(source)) is not None:
            media = [replace(medium, visual=self._get(medium.identity)) for medium in known]
            if all(medium.visual is not None or not medium.grid[0] for medium in media):
                return media
        media = [self._recognise(medium) for medium in loader.read(size)]
        if source is not None:
            described = [replace(medium, patches=_NO_PATCHES, visual=None) for medium in media]
            self._put(source, described, sum(len(medium.keep_mask) + 16 * len(medium.times) for medium in media))
        return media

    @torch.no_grad()
    def encode(self, model: VideoLLaMA3, media: Sequence[CachedMedium]) -> list[Tensor]:
        """Return the visual tokens of each medium (K, W), on the host. What is not encoded yet is encoded together."""
        missing = {medium.identity: medium for medium in media if medium.visual is None}
        encoded = dict(zip(missing, _encode(model, list(missing.values())), strict=True))
        for identity, visual in encoded.items():
            self._put(identity, visual, visual.nbytes)
        return [encoded[medium.identity] if medium.visual is None else medium.visual for medium in media]

    def _recognise(self, medium: Medium) -> CachedMedium:
        digest = _hash(repr((medium.grid, medium.merge)).encode())
        digest.update(medium.keep_mask.numpy().data)
        digest.update(medium.patches.flatten().numpy().data)
        identity = digest.digest()
        visual = self._get(identity)
        kept = {**vars(medium), "patches": medium.patches if visual is None else _NO_PATCHES}
        return CachedMedium(**kept, identity=identity, visual=visual)

    def _get(self, key: Hashable) -> Any:
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def _put(self, key: Hashable, value: Any, size: int) -> None:
        if size > self._max_bytes:
            return  # all others would be evicted, and then this one
        with self._lock:
            self._bytes += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = value, size
            while self._bytes > self._max_bytes:
                _, (_, evicted) = self._entries.popitem(last=False)
                self._bytes -= evicted


def _source_key(loader: MediaLoader, size: Size) -> Hashable | None:
    """Return a key of a medium's files, or bytes, and of all that decides on its pixels. None if it has neither."""
    source, video = loader.source, loader.video
    if isinstance(source, bytes):
        contents: tuple[bytes, ...] = (_hash(source).digest(),)
    elif isinstance(source, str | Path):
        contents = tuple(map(_file_hash, (video and video.files) or [source]))
    else:
        return None
    # The name's ending may choose the decoder.
    sampled = video and replace(video, path=Path(str(video.path)).suffix, files=())
    return contents, sampled, size, tuple(loader.untils), loader.start, loader.config


def _file_hash(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _hash).digest()


def _encode(model: VideoLLaMA3, media: Sequence[Medium]) -> list[Tensor]:
    if not media:
        return []
    device = next(model.parameters()).device
    # torch.cat would copy all of a single clip.
    patches = media[0].patches if len(media) == 1 else torch.cat([medium.patches for medium in media])
    merged_MC = model.vision(patches.to(device), [m.grid for m in media], [m.merge for m in media])
    kept_K = torch.cat([medium.keep_mask for medium in media]).nonzero().squeeze(1)
    visual_KW = model.projector(merged_MC.index_select(0, kept_K.to(device)))
    # Copies: a view would hold the memory of all.
    return [visual.to("cpu", copy=True) for visual in visual_KW.split([int(m.keep_mask.sum()) for m in media])]
