"""From a conversation with images and videos to the tensors of `VideoLLaMA3`.

N tokens, P patches, X numbers of a patch, I images and clips, M merged tokens
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
    """Calls give transformers' `BatchFeature`: a mapping, with `.to(device, dtype)`, that `VideoLLaMA3` takes as it is.

    Attributes:
        tokenizer: A fast tokenizer of transformers.
        config: Sizes, sampling of videos and pruning.
        chat_template: Jinja.
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
        """For the `tiny` preset, without any file."""
        return cls(byte_tokenizer())

    def __call__(
        self, conversation: Sequence[Message], *, labels: bool = False, generation_prompt: bool | None = None
    ) -> Any:
        """Prepare one conversation.

        Args:
            conversation: [{"role": "user", "content": …}, …]. Content is a text or a list of texts and parts:
                {"type": "image", "image": file, bytes or PIL image} and
                {"type": "video", "video": file or frames, "fps": 1, "max_frames": 180, "start": 0, "end": None}.
                Frames that are given are all taken; fps only tells their times.
            labels: Whether to give labels: the ids of what assistants answered, -100 elsewhere.
            generation_prompt: Whether an answer is to be generated; by default if an assistant did not speak last.

        Returns:
            input_ids (N,), segment_lengths (1,); with media also pixel_values float32 (P, X), grid_thw (I, 3),
            merge_sizes (I,), keep_mask bool (M,); labels (N,) if asked for. All on the CPU.

        Raises:
            BadSampleError: A message, an image or a video is not what it should be, with what to do.
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
        """The text of an answer, without special tokens."""
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
        return text

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Load a folder in our layout, in transformers' or in the original one.

        Raises:
            UserError: There is no tokenizer in it.
        """
        return cls(*read_processor(path))

    def save_pretrained(self, path: str | Path) -> None:
        """Save in transformers' layout: `VideoLlama3Processor.from_pretrained(path)` opens it."""
        write_processor(path, self.tokenizer, self.config, self.chat_template)


class MediaLoader:
    """One image or video on its way: first its size is learned, then it is read at the size that it may have.

    So of many large images, or of a long film, only one picture at a time is in memory at its full size.
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
        """What is sized."""
        limits, factor = self.limits, self.config.patch_size * self.limits.merge
        name = str(self.source) if isinstance(self.source, str | Path) else "video" if self.is_video else "image"
        return Item(*self.size, factor, limits.min_tokens, limits.max_tokens, max(len(self.times), 1), name)

    def read(self, size: tuple[int, int]) -> dict[str, Any]:
        """Patches, grid, merge size, kept tokens and times at that size."""
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
    """Per frame the text before it and its number of tokens; an image has no text."""
    counts = read["keep"].view(read["grid"][0], -1).sum(1).tolist()
    if not read["times"]:
        return [("", counts[0])]
    before = [f"{',' if number else ''}Time {time:.1f}s:" for number, time in enumerate(read["times"])]
    return list(zip(before, counts, strict=True))


def pack(rows: Sequence[Mapping[str, Tensor]]) -> Any:
    """Several of a processor's outputs as one packed row.

    Raises:
        ValueError: None, or some with labels and some without.
    """
    if not rows or len({"labels" in row for row in rows}) > 1:
        raise ValueError("rows to pack must be at least one, all with labels or all without")
    names = dict.fromkeys(name for row in rows for name in row)
    return _feature({name: torch.cat([row[name] for row in rows if name in row]) for name in names})


def kept_share(row: Mapping[str, Tensor]) -> float:
    """BlockCache visual tokens of all, 0 to 1; 1 without media."""
    return row["keep_mask"].float().mean().item() if "keep_mask" in row else 1.0


def _feature(row: dict[str, Tensor]) -> Any:
    import transformers

    auto: Any = transformers.BatchFeature
    return auto(row)
