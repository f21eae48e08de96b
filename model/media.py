"""Read the images and videos of a conversation as patches.

P patches, X = 3 * patch_size^2 values of a patch, M merged tokens (blocks of patches) before pruning
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from core import videos
from core.frame_sampling import check_sampling, count_until
from model import frames, images
from model.processor_config import ProcessorConfig
from model.prompt import Part, Placeholders
from model.prune import keep_mask
from model.sizes import Item


@dataclass(frozen=True, eq=False)
class Medium:
    """The patches of one image or video.

    Attributes:
        patches: uint8 (P, X).
        grid: Number of frames, and rows and columns of patches per frame.
        merge: Side of a merged block in patches, 1 or 2.
        keep_mask: Which merged tokens remain after pruning, bool (M,).
        times: Times of a video's frames in seconds; empty for an image.
    """

    patches: Tensor
    grid: tuple[int, int, int]
    merge: int
    keep_mask: Tensor
    times: tuple[float, ...]

    def split(self, untils: Sequence[float], start: float) -> list[Medium]:
        """Split a video: each piece has the frames up to its time that the pieces before have not.

        Args:
            untils: Time of each piece, in seconds.
            start: The time that becomes 0.
        """
        _, h, w = self.grid
        tokens = h * w // self.merge**2
        ends = accumulate((count_until(self.times, until) for until in untils), max)
        return [
            Medium(
                patches=self.patches[first * h * w : end * h * w],
                grid=(end - first, h, w),
                merge=self.merge,
                keep_mask=self.keep_mask[first * tokens : end * tokens],
                times=tuple(time - start for time in self.times[first:end]),
            )
            for first, end in pairwise([0, *ends])
        ]

    @property
    def placeholders(self) -> list[Placeholders]:
        """The placeholders of the image or of each frame; before those of a frame stands its time."""
        if not self.grid[0]:
            return []
        counts = self.keep_mask.view(self.grid[0], -1).sum(1).tolist()
        if not self.times:
            return [Placeholders("", counts[0])]
        return frame_placeholders(self.times, counts)


def frame_placeholders(times: Sequence[float], counts: Sequence[int]) -> list[Placeholders]:
    """Return the placeholders of frames that stand together: of each its time, in seconds, and its kept tokens."""
    prefixes = [f"{',' if number else ''}Time {time:.1f}s:" for number, time in enumerate(times)]
    return [Placeholders(prefix, count) for prefix, count in zip(prefixes, counts, strict=True)]


def group_streams(parts: Sequence[Part]) -> list[list[int]]:
    """Group the numbers of the parts that are read together: those of a stream. Any other part is alone."""
    groups: list[list[int]] = []
    streams: list[tuple[Part, list[int]]] = []
    for number, part in enumerate(parts):
        if not (isinstance(part.get("until"), int | float) and isinstance(part.get("video"), str | Path)):
            groups.append([number])
            continue
        film = {name: value for name, value in part.items() if name != "until"}
        group = next((group for other, group in streams if other == film), None)
        if group is None:
            groups.append(group := [])
            streams.append((film, group))
        group.append(number)
    return groups


class MediaLoader:
    """Reads one image or video: on construction its size, from the header; in `read` its pixels, at the planned size.

    So all files can be planned together, while only one image or frame is in memory at full size.
    """

    def __init__(self, parts: Sequence[Part], config: ProcessorConfig) -> None:
        """Read the header of the medium of one part, or of all parts of a stream.

        Raises:
            BadSampleError: It cannot be read, or its options are invalid.
        """
        part, kind = parts[0], parts[0]["type"]
        self.config, self.source = config, part[kind]
        self.is_video = kind == "video"
        self.limits = config.video if self.is_video else config.image
        self.video: videos.Video | None = None
        self.times: tuple[float, ...] = ()
        self.untils: list[Any] = []  # of the parts of a stream, whose times count from `start`
        self.start = part.get("start") or 0.0
        if not self.is_video:
            self.size = images.image_size(self.source)
            return
        names = ("fps", "max_frames", "start", "end", "frames_fps")
        options = {name: part[name] for name in names if part.get(name) is not None}
        if part.get("until") is not None:
            self.untils = [part["until"] for part in parts]
            options["until"] = max(self.untils)
        elif part.get("times_from_start"):
            self.untils = [math.inf]
        sampling = {"fps": config.fps, "max_frames": config.max_frames, **options}
        if isinstance(self.source, str | Path):
            self.video = videos.probe(self.source, **sampling, sampling=config.sampling)
            self.size, self.times = (self.video.height, self.video.width), self.video.times
        else:
            check_sampling("video", **sampling)
            self.source = images.frames_tensor(self.source)
            self.size = tuple(self.source.shape[-2:])
            self.times = tuple(k / sampling["fps"] for k in range(len(self.source)))

    @property
    def item(self) -> Item:
        """The original size and the token limits, for `plan_sizes`."""
        height, width = self.size
        kind = "video" if self.is_video else "image"
        return Item(
            height,
            width,
            factor=self.config.patch_size * self.limits.merge,
            min_tokens=self.limits.min_tokens,
            max_tokens=self.limits.max_tokens,
            frames=max(len(self.times), 1),
            name=str(self.source) if isinstance(self.source, str | Path) else kind,
        )

    def read(self, size: tuple[int, int]) -> list[Medium]:
        """Read the pixels at `size`, height and width in pixels. Return the medium of each part."""
        side, merge, times = self.config.patch_size, self.limits.merge, self.times
        if self.video is not None:
            pixels, times = frames.decode(self.video, size)  # fewer frames than planned if the file lacks some
        elif self.is_video:
            pixels = images.resize(self.source, size)
        else:
            pixels = images.resize(images.read_image(self.source), size)
        patches = images.patchify(pixels, side, merge)
        grid = (len(pixels), size[0] // side, size[1] // side)
        keep = keep_mask(patches, grid, merge, self.config.pruning if self.is_video else None)
        medium = Medium(patches=patches, grid=grid, merge=merge, keep_mask=keep, times=times)
        return medium.split(self.untils, self.start) if self.untils else [medium]
