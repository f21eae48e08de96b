"""VideoLLaMA3: pixels and text in, the next token out (arXiv 2501.13106, figure 2).

All inputs of one call are one packed row: the tokens of S samples behind one another, their images and clips likewise.

    N tokens of the row, S samples, I images and clips, P patches, M merged tokens, K of them kept, L labelled tokens
    W width of the language model, V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import Segments
from model.config import ModelConfig
from model.language import build_language
from model.projector import Projector
from model.vision import VisionEncoder

IGNORE = -100
"""Label of a token that is not to be learned."""


@dataclass(frozen=True)
class Output:
    """What one forward pass gives.

    Attributes:
        logits: (N, V), or (L, V) with labels: only of tokens that predict a label.
        loss: Cross entropy summed over labels, divided by `label_count` or else by their number; None without labels.
    """

    logits: Tensor
    loss: Tensor | None = None


class VideoLLaMA3(nn.Module):
    """The vision encoder, the projector and the language model."""

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        """Build it with new weights; on `meta`, with names and shapes only.

        Raises:
            UserError: The language model cannot run packed rows.
        """
        super().__init__()
        self.config = config
        with torch.device(device or torch.get_default_device()):
            self.vision = VisionEncoder(config.vision)
            self.language = build_language(config.language)
            self.projector = Projector(config.vision.hidden_size, self.language.config.hidden_size)

    def forward(
        self,
        input_ids: Tensor,
        segment_lengths: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grid_thw: Tensor | None = None,
        merge_sizes: Tensor | None = None,
        keep_mask: Tensor | None = None,
        labels: Tensor | None = None,
        label_count: Tensor | float | None = None,
    ) -> Output:
        """Run one packed row, as `Processor` makes it.

        Args:
            input_ids: (N,), with one placeholder per kept merged token.
            segment_lengths: Tokens of each sample (S,), sum N; one sample by default.
            pixel_values: Patches (P, patch_dim), normalised to -1 to 1; none for text alone.
            grid_thw: (I, 3), in the order of the placeholders.
            merge_sizes: (I,).
            keep_mask: Which merged tokens have a placeholder, bool (M,); all by default.
            labels: (N,), the token's own id where it is to be learned, else -100. They are shifted here.
            label_count: What the summed loss is divided by, such as the labels of a whole training step.

        Raises:
            ValueError: The parts do not fit each other.
        """
        embeds_NW = self.embed(input_ids, pixel_values, grid_thw, merge_sizes, keep_mask)
        segments = self._segments(input_ids, segment_lengths)
        learned_L = None if labels is None else _learned(labels, segments)
        out = self.language(
            inputs_embeds=embeds_NW[None],
            position_ids=_positions(segments, input_ids.device)[None],
            segments=segments,
            use_cache=False,
            # The head runs on the tokens whose successor is learned: V is 100 times W.
            logits_to_keep=0 if learned_L is None else learned_L - 1,
        )
        if labels is None or learned_L is None:
            return Output(out.logits[0])
        total = F.cross_entropy(out.logits[0].float(), labels[learned_L], reduction="sum")
        return Output(out.logits[0], total / (max(len(learned_L), 1) if label_count is None else label_count))

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        grid_thw: Tensor | None = None,
        merge_sizes: Tensor | None = None,
        keep_mask: Tensor | None = None,
    ) -> Tensor:
        """What the language model reads, (N, W): embeddings of text, visual tokens at the placeholders, in order.

        Raises:
            ValueError: The number of placeholders is not that of kept visual tokens.
        """
        embeds_NW: Tensor = self.language.get_input_embeddings()(input_ids)
        places_K = self._placeholders(input_ids).nonzero().squeeze(1)
        visual_KW = self._encode(pixel_values, grid_thw, merge_sizes, keep_mask)
        kept = 0 if visual_KW is None else len(visual_KW)
        if kept != len(places_K):
            raise ValueError(f"{len(places_K)} placeholders for {kept} visual tokens: pass all that Processor made")
        if visual_KW is None:
            return embeds_NW
        return embeds_NW.index_copy(0, places_K, visual_KW.to(embeds_NW.dtype))

    def _encode(
        self, pixel_values: Tensor | None, grid_thw: Tensor | None, merge_sizes: Tensor | None, keep_mask: Tensor | None
    ) -> Tensor | None:
        if pixel_values is None or not len(pixel_values):
            return None
        if grid_thw is None or merge_sizes is None:
            raise ValueError("pixel_values without grid_thw and merge_sizes: pass all that Processor made")
        visual_MC = self.vision(pixel_values, grid_thw, merge_sizes)
        if keep_mask is not None:
            if len(keep_mask) != len(visual_MC):
                raise ValueError(f"keep_mask for {len(keep_mask)} of {len(visual_MC)} visual tokens: pass Processor's")
            visual_MC = visual_MC[keep_mask]
        projected: Tensor = self.projector(visual_MC)
        return projected

    def _placeholders(self, input_ids: Tensor) -> Tensor:
        return (input_ids == self.config.image_token_id) | (input_ids == self.config.video_token_id)

    def _segments(self, input_ids: Tensor, segment_lengths: Tensor | None) -> Segments:
        lengths = [len(input_ids)] if segment_lengths is None else segment_lengths.tolist()
        if input_ids.ndim != 1 or sum(lengths) != len(input_ids):
            shape = tuple(input_ids.shape)
            raise ValueError(f"input_ids of shape {shape} for segments of {sum(lengths)} tokens: pass one packed row")
        return Segments.of(lengths, input_ids.device)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        segment_lengths: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grid_thw: Tensor | None = None,
        merge_sizes: Tensor | None = None,
        keep_mask: Tensor | None = None,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        streamer: Any = None,
    ) -> list[Tensor]:
        """Continue every sample of a packed row, all at once, with a KV cache; transformers' `generate` does it.

        Args:
            max_new_tokens: Where an answer is cut at the latest.
            temperature: 0 takes the most probable token, else tokens are drawn.
            top_p: Of drawn tokens, the share of probability that they are drawn from.
            streamer: One of transformers', told each token as it comes; for one sample.

        Returns:
            The new tokens of each sample, (n,), its end token included.

        Raises:
            ValueError: The parts do not fit each other.
        """
        lengths = list(self._segments(input_ids, segment_lengths).lengths)
        if streamer is not None and len(lengths) > 1:
            raise ValueError(f"a streamer for {len(lengths)} samples: stream one at a time")
        embeds = torch.split(self.embed(input_ids, pixel_values, grid_thw, merge_sizes, keep_mask), lengths)
        # Samples of a batch end together, so that their next tokens stand in one column.
        batch_SNW = nn.utils.rnn.pad_sequence(list(embeds), batch_first=True, padding_side="left")
        ones = [torch.ones(n, dtype=torch.long, device=input_ids.device) for n in lengths]
        mask_SN = nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side="left")
        settings = self._generation(max_new_tokens, temperature, top_p)
        out = self.language.generate(
            inputs_embeds=batch_SNW, attention_mask=mask_SN, generation_config=settings, streamer=streamer
        )
        return [_until_end(row, settings.eos_token_id) for row in out]

    def _generation(self, max_new_tokens: int, temperature: float, top_p: float) -> Any:
        import transformers

        ends = self.language.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
        sampled = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
        pad = ends[0] if ends else 0  # behind an end, where nobody looks
        auto: Any = transformers.GenerationConfig
        return auto(max_new_tokens=max_new_tokens, eos_token_id=ends or None, pad_token_id=pad, **sampled)

    def enable_checkpointing(self) -> None:
        """Trade time for memory in training: compute activations again in the backward pass."""
        self.vision.checkpointing = True
        self.language.gradient_checkpointing_enable({"use_reentrant": False})

    @staticmethod
    def from_pretrained(path: str | Path, dtype: torch.dtype | None = None) -> VideoLLaMA3:
        """Load a folder in transformers' layout or in the original one.

        Args:
            path: The folder.
            dtype: Of the weights; as they were saved by default.

        Raises:
            UserError: The folder is not such a checkpoint, or it is not complete.
        """
        from model.checkpoint import load

        return load(path, dtype)

    def save_pretrained(self, path: str | Path) -> None:
        """Save in transformers' layout: `VideoLlama3ForConditionalGeneration.from_pretrained(path)` opens it."""
        from model.checkpoint import save

        save(self, path)


def _positions(segments: Segments, device: torch.device) -> Tensor:
    """0, 1, 2, … in each segment: (N,)."""
    return torch.cat([torch.arange(length, device=device) for length in segments.lengths])


def _learned(labels_N: Tensor, segments: Segments) -> Tensor:
    """Where the labels are, (L,); the first token of a sample has nothing before it to be predicted from."""
    learned_N = labels_N != IGNORE
    learned_N[segments.offsets_S1[:-1].long()] = False
    return learned_N.nonzero().squeeze(1)


def _until_end(row: Tensor, ends: list[int] | None) -> Tensor:
    """Cut behind the first end token."""
    if not ends:
        return row
    found = torch.isin(row, torch.tensor(ends, device=row.device)).nonzero()
    return row[: int(found[0]) + 1] if len(found) else row
