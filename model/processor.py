"""Turn a conversation with images and videos into the input tensors of `VideoLLaMA3`.

P patches, X = 3 * patch_size^2 values of a patch, M merged tokens (blocks of patches) before pruning
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from core import videos
from core.errors import UserError
from model import frames, images
from model.packed_row import PackedRow
from model.processor_config import ProcessorConfig, read_processor, write_processor
from model.prompt import CHAT_TEMPLATE, IGNORE_INDEX, Message, Part, Placeholders, parse_conversation, tokenize
from model.prune import keep_mask
from model.sizes import Item, plan_sizes
from model.tokenizer import Tokenizer, byte_tokenizer


class Processor:
    """Prepares conversations for `VideoLLaMA3`.

    A call returns a `PackedRow`: a mapping with `.to(device, dtype)`, to be passed as `model(**row)`.

    Attributes:
        tokenizer: A fast tokenizer of transformers.
        config: Sizes, video sampling and pruning.
        chat_template: Jinja template of the prompt.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: ProcessorConfig | None = None, chat_template: str = CHAT_TEMPLATE
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config or ProcessorConfig()
        self.chat_template = chat_template
        for token in (self.config.image_token, self.config.video_token):
            if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
                raise UserError(
                    f"the tokenizer has no token {token}: use Qwen2.5's, or name another in ProcessorConfig"
                )

    @classmethod
    def tiny(cls) -> Self:
        """Return a processor for the presets `tiny` and `small`. It needs no files."""
        return cls(byte_tokenizer())

    def __call__(
        self,
        conversation: Sequence[Message],
        *,
        labels: bool = False,
        generation_prompt: bool | None = None,
        raw_pixels: bool = False,
    ) -> PackedRow:
        """Prepare one conversation.

        Args:
            conversation: [{"role": "user", "content": …}, …]. Content is a text or a list of texts and parts:
                {"type": "image", "image": file, bytes or PIL image} and
                {"type": "video", "video": file or frames, "fps": 1, "max_frames": 180, "start": 0, "end": None}.
                Of a list of frames all are used, and fps only sets their timestamps.
            labels: Whether to return labels: the ids of assistants' answers, -100 elsewhere.
            generation_prompt: Whether to end the prompt with the start of an answer. Default: yes, unless the last
                message is an assistant's.
            raw_pixels: Whether patches stay uint8, in a quarter of the memory. The model normalises them on its device,
                to the same bits. Default: float32, -1 to 1, as transformers' processor returns them.

        Returns:
            A row of one sample, on the CPU.

        Raises:
            BadSampleError: A message, an image or a video is invalid, or they do not fit the token budget together.
        """
        parsed = parse_conversation(conversation)
        loaders = [MediaLoader(part, self.config) for part in parsed.media]
        sizes = plan_sizes([loader.item for loader in loaders], self.config.max_tokens)
        media = [loader.read(size) for loader, size in zip(loaders, sizes, strict=True)]
        if generation_prompt is None:
            generation_prompt = conversation[-1]["role"] != "assistant"
        tokens = tokenize(
            parsed,
            [medium.placeholders for medium in media],
            self.tokenizer,
            template=self.chat_template,
            image_token=self.config.image_token,
            video_token=self.config.video_token,
            generation_prompt=generation_prompt,
        )
        patches = self._patches(media)
        no_tokens = torch.zeros(0, dtype=torch.bool)  # without media torch.cat would have nothing
        return PackedRow(
            input_ids=_integers(tokens.ids),
            segment_lengths=torch.tensor([len(tokens.ids)]),
            pixel_values=patches if raw_pixels else images.normalise(patches),
            grid_thw=torch.tensor([medium.grid for medium in media], dtype=torch.long).view(-1, 3),
            merge_sizes=torch.tensor([medium.merge for medium in media], dtype=torch.long),
            keep_mask=torch.cat([no_tokens, *(medium.keep_mask for medium in media)]),
            labels=_integers(tokens.labels) if labels else None,
        )

    def _patches(self, media: Sequence[Medium]) -> Tensor:
        if len(media) == 1:
            return media[0].patches  # torch.cat would copy all of a clip
        return torch.cat(
            [torch.zeros(0, 3 * self.config.patch_size**2, dtype=torch.uint8), *(m.patches for m in media)]
        )

    def decode(self, ids: Tensor) -> str:
        """Return the text of token ids (n,), without special tokens."""
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
        return text

    @property
    def end_token(self) -> int | None:
        """Id of the token that ends an assistant's turn, as training learns it; None if the template writes none."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ""}]
        labels = self(turns, labels=True).labels
        assert labels is not None
        learned = labels[labels != IGNORE_INDEX].tolist()
        return int(learned[-1]) if learned else None

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Load a processor from a folder in our, transformers' or the original layout.

        Raises:
            UserError: The folder has no readable tokenizer, or its settings are invalid.
        """
        return cls(*read_processor(path))

    def save_pretrained(self, path: str | Path) -> None:
        """Save in transformers' layout: `VideoLlama3Processor.from_pretrained(path)` opens it."""
        write_processor(path, self.tokenizer, self.config, self.chat_template)


def _integers(numbers: list[int]) -> Tensor:
    """Return int64 (n,). By numpy it takes a fifth of the time of `torch.tensor`."""
    return torch.from_numpy(np.array(numbers, np.int64))


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

    @property
    def placeholders(self) -> list[Placeholders]:
        """The placeholders of the image or of each frame; before those of a frame stands its time."""
        counts = self.keep_mask.view(self.grid[0], -1).sum(1).tolist()
        if not self.times:
            return [Placeholders("", counts[0])]
        prefixes = [f"{',' if number else ''}Time {time:.1f}s:" for number, time in enumerate(self.times)]
        return [Placeholders(prefix, count) for prefix, count in zip(prefixes, counts, strict=True)]


class MediaLoader:
    """Reads one image or video: on construction its size, from the header; in `read` its pixels, at the planned size.

    So all files can be planned together, while only one image or frame is in memory at full size.
    """

    def __init__(self, part: Part, config: ProcessorConfig) -> None:
        kind = part["type"]
        self.config, self.source = config, part[kind]
        self.is_video = kind == "video"
        self.limits = config.video if self.is_video else config.image
        self.video: videos.Video | None = None
        self.times: tuple[float, ...] = ()
        if not self.is_video:
            self.size = images.image_size(self.source)
            return
        options = {name: part[name] for name in ("fps", "max_frames", "start", "end") if part.get(name) is not None}
        sampling = {"fps": config.fps, "max_frames": config.max_frames, **options}
        if isinstance(self.source, str | Path):
            self.video = videos.probe(self.source, **sampling)
            self.size, self.times = (self.video.height, self.video.width), self.video.times
        else:
            videos.check_sampling("video", **sampling)
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

    def read(self, size: tuple[int, int]) -> Medium:
        """Read the pixels at `size`, height and width in pixels."""
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
        return Medium(patches=patches, grid=grid, merge=merge, keep_mask=keep, times=times)
