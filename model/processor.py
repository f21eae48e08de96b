"""Turn a conversation with images and videos into the input tensors of `VideoLLaMA3`.

P patches, X = 3 * patch_size^2 values of a patch, M merged tokens (blocks of patches) before pruning
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from model import images
from model.media import MediaLoader, Medium, group_streams
from model.packed_row import PackedRow
from model.processor_config import ProcessorConfig, read_processor, write_processor
from model.prompt import CHAT_TEMPLATE, IGNORE_INDEX, Message, Part, Tokens, parse_conversation, tokenize
from model.prune import Pruning
from model.sizes import Size, plan_sizes
from model.tokenizer import Tokenizer, byte_tokenizer

M = TypeVar("M", bound=Medium)


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
                With `times_from_start` the times in the prompt count from `start`, else from the film's beginning.
                A folder of frames is a film at `frames_fps` (3 by default). Of a list of frames all are used, and fps
                only sets their timestamps.
                Parts that differ in their `until` only are a stream: one film, shown piece by piece. Each has the
                frames up to that time, in seconds, that those before it have not. The frames are chosen, counted and
                pruned once for the whole film, and their times count from `start`. A part without new frames is
                left out.
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
        tokens, media = self.prepare(conversation, MediaLoader.read, generation_prompt)
        patches = self._patches(media)
        no_tokens = torch.zeros(0, dtype=torch.bool)  # without media torch.cat would have nothing
        return PackedRow(
            input_ids=torch.from_numpy(np.array(tokens.ids)),
            segment_lengths=torch.tensor([len(tokens.ids)]),
            pixel_values=patches if raw_pixels else images.normalise(patches),
            grid_thw=torch.tensor([medium.grid for medium in media], dtype=torch.long).view(-1, 3),
            merge_sizes=torch.tensor([medium.merge for medium in media], dtype=torch.long),
            keep_mask=torch.cat([no_tokens, *(medium.keep_mask for medium in media)]),
            labels=torch.from_numpy(np.array(tokens.labels)) if labels else None,
        )

    def prepare(
        self,
        conversation: Sequence[Message],
        read: Callable[[MediaLoader, Size], Sequence[M]],
        generation_prompt: bool | None = None,
    ) -> tuple[Tokens, list[M]]:
        """Return the tokens of a conversation, and the media that these have placeholders of.

        Args:
            conversation: As in a call.
            read: Returns the medium of each part of a loader, at the planned size, as `MediaLoader.read` does.
            generation_prompt: As in a call.

        Raises:
            BadSampleError: As in a call.
        """
        parsed = parse_conversation(conversation)
        media = self._read(parsed.media, read)
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
        return tokens, [medium for medium in media if medium.grid[0]]

    def _patches(self, media: Sequence[Medium]) -> Tensor:
        if len(media) == 1:
            return media[0].patches  # torch.cat would copy all of a clip
        return torch.cat(
            [torch.zeros(0, 3 * self.config.patch_size**2, dtype=torch.uint8), *(m.patches for m in media)]
        )

    def _read(self, parts: Sequence[Part], read: Callable[[MediaLoader, Size], Sequence[M]]) -> list[M]:
        """Read the medium of each part. The parts of a stream are read together."""
        groups = group_streams(parts)
        loaders = [MediaLoader([parts[number] for number in group], self.config) for group in groups]
        sizes = plan_sizes([loader.item for loader in loaders], self.config.max_tokens)
        media: dict[int, M] = {}
        for group, loader, size in zip(groups, loaders, sizes, strict=True):
            media |= zip(group, read(loader, size), strict=True)
        return [media[number] for number in range(len(parts))]

    def decode(self, ids: Tensor) -> str:
        """Return the text of token ids (n,), without special tokens."""
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)
        return text

    def with_patch_size(self, side: int) -> Processor:
        """Return it with another side of a patch, in pixels."""
        config = self.config.model_copy(update={"patch_size": side})
        return Processor(self.tokenizer, config, self.chat_template)

    def with_pruning(self, levels: float | None) -> Processor:
        """Return it with another threshold of pruning, in grey levels; None keeps all tokens."""
        before = self.config.pruning or Pruning()
        pruning = None if levels is None else before.model_copy(update={"threshold": levels, "unit": "grey"})
        config = self.config.model_copy(update={"pruning": pruning})
        return Processor(self.tokenizer, config, self.chat_template)

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
