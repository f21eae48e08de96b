"""Turn a conversation with images and videos into the input tensors of `VideoLLaMA3`.

N tokens, P patches, X values of a patch, I images and videos, M merged tokens before pruning
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from core import videos
from core.errors import UserError
from model import frames, images
from model.processor_config import ProcessorConfig, read_processor, write_processor
from model.prompt import CHAT_TEMPLATE, Message, parse_conversation, tokenize
from model.prune import keep_mask
from model.sizes import Item, plan_sizes
from model.tokenizer import Tokenizer, byte_tokenizer


class Processor:
    """Prepares conversations for `VideoLLaMA3`.

    Calls return transformers' `BatchFeature`: a mapping with `.to(device, dtype)`, to be passed as `model(**row)`.

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
        self, conversation: Sequence[Message], *, labels: bool = False, generation_prompt: bool | None = None
    ) -> Any:
        """Prepare one conversation.

        Args:
            conversation: [{"role": "user", "content": …}, …]. Content is a text or a list of texts and parts:
                {"type": "image", "image": file, bytes or PIL image} and
                {"type": "video", "video": file or frames, "fps": 1, "max_frames": 180, "start": 0, "end": None}.
                Given frames are all used; for them fps only sets the timestamps.
            labels: Whether to return labels: the ids of assistants' answers, -100 elsewhere.
            generation_prompt: Whether to end the prompt with the start of an answer. Default: yes, unless the last
                message is an assistant's.

        Returns:
            input_ids (N,), segment_lengths (1,); with media also pixel_values float32 (P, X), grid_thw (I, 3),
            merge_sizes (I,), keep_mask bool (M,); with `labels` also labels (N,). All on the CPU.

        Raises:
            BadSampleError: A message, an image or a video is invalid, or all together do not fit the token budget.
        """
        script = parse_conversation(conversation)
        media = [MediaLoader(part, self.config) for part in script.media]
        sizes = plan_sizes([medium.item for medium in media], self.config.max_tokens)
        read = [medium.read(size) for medium, size in zip(media, sizes, strict=True)]
        if generation_prompt is None:
            generation_prompt = conversation[-1]["role"] != "assistant"
        tokens = tokenize(
            script,
            [_placeholders(one) for one in read],
            self.tokenizer,
            self.chat_template,
            self.config.image_token,
            self.config.video_token,
            generation_prompt,
        )
        row = {"input_ids": torch.tensor(tokens.ids), "segment_lengths": torch.tensor([len(tokens.ids)])}
        if read:
            row["pixel_values"] = torch.cat([one["pixels"] for one in read])
            row["grid_thw"] = torch.tensor([one["grid"] for one in read])
            row["merge_sizes"] = torch.tensor([one["merge"] for one in read])
            row["keep_mask"] = torch.cat([one["keep"] for one in read])
        if labels:
            row["labels"] = torch.tensor(tokens.labels)
        return _feature(row)

    def decode(self, ids: Tensor) -> str:
        """Return the text of token ids (n,), without special tokens."""
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
        return text

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


class MediaLoader:
    """One image or video: first its size is read from the header, then its pixels are read at the planned size.

    So only one image or frame of a file is in memory at full size at any time.
    """

    def __init__(self, part: Mapping[str, Any], config: ProcessorConfig) -> None:
        self.config, self.source = config, part[part["type"]]
        self.is_video = part["type"] == "video"
        self.limits = config.video if self.is_video else config.image
        self.video: videos.Video | None = None
        self.times: tuple[float, ...] = ()
        if not self.is_video:
            self.size = images.image_size(self.source)
            return
        given = {name: part[name] for name in ("fps", "max_frames", "start", "end") if part.get(name) is not None}
        sampling = {"fps": config.fps, "max_frames": config.max_frames, **given}
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
        """The size and the token limits, for `plan_sizes`."""
        limits, factor = self.limits, self.config.patch_size * self.limits.merge
        name = str(self.source) if isinstance(self.source, str | Path) else "video" if self.is_video else "image"
        return Item(*self.size, factor, limits.min_tokens, limits.max_tokens, max(len(self.times), 1), name)

    def read(self, size: tuple[int, int]) -> dict[str, Any]:
        """Read the pixels at `size`, height and width in pixels.

        Returns:
            "pixels" float32 (P, X), "grid" (t, h, w) in patches, "merge" 1 or 2, "keep" bool (merged tokens,), "times"
            of the frames in seconds.
        """
        side, merge = self.config.patch_size, self.limits.merge
        if self.video is not None:
            pixels, self.times = frames.decode(self.video, size)
        else:
            pixels = images.resize(self.source if self.is_video else images.read_image(self.source), size)
        patches = images.patchify(pixels, side, merge)
        grid = (len(pixels), size[0] // side, size[1] // side)
        keep = keep_mask(patches, grid, merge, self.config.pruning if self.is_video else None)
        return {"pixels": patches, "grid": grid, "merge": merge, "keep": keep, "times": self.times}


def _placeholders(read: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return, per frame, the text before it and its number of kept tokens. An image has no text."""
    counts = read["keep"].view(read["grid"][0], -1).sum(1).tolist()
    if not read["times"]:
        return [("", counts[0])]
    before = [f"{',' if number else ''}Time {time:.1f}s:" for number, time in enumerate(read["times"])]
    return list(zip(before, counts, strict=True))


def pack(rows: Sequence[Mapping[str, Tensor]]) -> Any:
    """Concatenate several outputs of a processor into one packed row.

    Raises:
        ValueError: There are no rows, or only some have labels.
    """
    if not rows or len({"labels" in row for row in rows}) > 1:
        raise ValueError("rows to pack must be at least one, all with labels or all without")
    names = dict.fromkeys(name for row in rows for name in row)
    return _feature({name: torch.cat([row[name] for row in rows if name in row]) for name in names})


def kept_share(row: Mapping[str, Tensor]) -> float:
    """Return the share of visual tokens that are kept after pruning, 0 to 1; 1 without media."""
    return row["keep_mask"].float().mean().item() if "keep_mask" in row else 1.0


def _feature(row: dict[str, Tensor]) -> Any:
    import transformers

    auto: Any = transformers.BatchFeature
    return auto(row)
