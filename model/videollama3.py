"""VideoLLaMA3: predicts the next token from pixels and text (arXiv 2501.13106, figure 2).

The inputs of one call form one packed row: the tokens of S samples, concatenated; likewise their images and videos.

    N tokens of the row, S samples, I images and videos, P patches, M merged tokens, K merged tokens that are
    kept after pruning, L learned tokens: those whose prediction the loss counts
    W width of the language model, V vocabulary size
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from model.attention import Segments, to_device
from model.config import ModelConfig
from model.config_files import parts_config, special_tokens, write_config
from model.language import KeyValues, Streamer, build_language, continue_prompts, generation_config
from model.layout import Layout
from model.loss import summed_loss
from model.projector import Projector
from model.vision import VisionEncoder
from model.weights_io import encoder_tensors, fill, folder_in, open_model, save_weights, tensors


@dataclass(frozen=True)
class Output:
    """Output of a forward pass.

    Attributes:
        logits: (N, V). None with labels: for many learned tokens they are never all in memory.
        loss: Cross entropy in nats: its sum over learned tokens / `label_count` (default L). None without labels.
    """

    logits: Tensor | None
    loss: Tensor | None = None


class VideoLLaMA3(nn.Module):
    """The vision encoder, the projector and the language model."""

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        """Build the model with new weights. On the `meta` device it has names and shapes only.

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
        layout: Layout | None = None,
    ) -> Output:
        """Run one packed row, as `Processor` makes it.

        Args:
            input_ids: (N,), with one placeholder per kept visual token.
            segment_lengths: Tokens of each sample (S,), with sum N. Default: one sample.
            pixel_values: Patches (P, patch_dim), uint8 or normalised to -1 to 1; None for text only.
            grid_thw: Frames, rows and columns of patches (I, 3), in the order of the placeholders.
            merge_sizes: Side of a merged block in patches, 1 or 2, (I,).
            keep_mask: Which merged tokens have a placeholder, bool (M,). Default: all.
            labels: (N,), the id of each learned token at its own position, elsewhere -100. They are shifted here.
            label_count: Divisor of the summed loss, such as the number of learned tokens of a whole training step.
            layout: What `layout` returned for this row while it was on the host. Without it, tensors that are on a
                device are read from there, which waits for all work that is queued.

        Raises:
            ValueError: The inputs do not match each other.
        """
        if layout is None:
            layout = self.layout(_given(input_ids, segment_lengths, grid_thw, merge_sizes, keep_mask, labels))
        device = input_ids.device
        inputs = {
            "inputs_embeds": self.embed(input_ids, pixel_values, layout),
            "position_ids": to_device(layout.positions(), device)[None],
            # Never read. Without a mask of four dimensions transformers searches the positions for packed samples,
            # and waits for the device.
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
            "segments": Segments.from_lengths(layout.lengths, device),
            "use_cache": False,
        }
        if labels is None:
            return Output(self.language(**inputs).logits[0])
        assert layout.learned_L is not None
        # The head runs only on tokens whose successor is learned, since V is about 100 times W.
        learned_L = to_device(layout.learned_L, device)
        hidden_LW = self.language.model(**inputs).last_hidden_state[0].index_select(0, learned_L - 1)
        total = summed_loss(hidden_LW, self.language.get_output_embeddings(), labels[learned_L])
        return Output(None, total / (max(len(learned_L), 1) if label_count is None else label_count))

    def layout(self, row: Mapping[str, Tensor]) -> Layout:
        """Return the layout of a row that is on the host, to pass on with it once it is on a device.

        Raises:
            ValueError: Its tensors do not match each other.
        """
        return Layout.of(row, (self.config.image_token_id, self.config.video_token_id))

    def embed(
        self, input_ids: Tensor, pixel_values: Tensor | None, layout: Layout, visual_KW: Tensor | None = None
    ) -> Tensor:
        """Return the language model's input embeddings: text, with visual tokens in place of the placeholders.

        Visual tokens are encoded from `pixel_values`, unless they are given.

        Returns:
            (1, N, W), and not as a view of (N, W), for which torch.compile would make a graph of its own.

        Raises:
            ValueError: The number of placeholders differs from the number of kept visual tokens.
        """
        embeds_1NW: Tensor = self.language.get_input_embeddings()(input_ids[None])
        if visual_KW is None:
            visual_KW = self._encode(pixel_values, layout)
        kept, expected = 0 if visual_KW is None else len(visual_KW), len(layout.placeholders_K)
        if kept != expected:
            raise ValueError(f"{expected} placeholders for {kept} visual tokens: pass all that Processor made")
        if visual_KW is None:
            return embeds_1NW
        placeholders_K = to_device(layout.placeholders_K, embeds_1NW.device)
        return embeds_1NW.index_copy(1, placeholders_K, visual_KW[None].to(embeds_1NW.dtype))

    def _encode(self, pixel_values: Tensor | None, layout: Layout) -> Tensor | None:
        if pixel_values is None or not len(pixel_values):
            return None
        if not layout.grids or not layout.merges:
            raise ValueError("pixel_values without grid_thw and merge_sizes: pass all that Processor made")
        visual_MC = self.vision(pixel_values, layout.grids, layout.merges)
        if layout.kept_K is not None:
            if layout.mask_length != len(visual_MC):
                raise ValueError(
                    f"keep_mask for {layout.mask_length} of {len(visual_MC)} visual tokens: pass Processor's"
                )
            visual_MC = visual_MC.index_select(0, to_device(layout.kept_K, visual_MC.device))
        projected: Tensor = self.projector(visual_MC)
        return projected

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
        streamer: Streamer | None = None,
        visual: Tensor | None = None,
        key_values: KeyValues | None = None,
    ) -> list[Tensor]:
        """Continue all samples of a packed row as one batch, with transformers' `generate` and its KV cache.

        The first six arguments are those of `forward`.

        Args:
            max_new_tokens: Maximum tokens of an answer.
            temperature: 0 takes the most probable token; otherwise tokens are sampled.
            top_p: Nucleus sampling: sample from the most probable tokens with this total probability.
            streamer: Receives each token; for a single sample only.
            visual: Visual tokens (K, W) that are encoded already, instead of `pixel_values`.
            key_values: Those of the first tokens of a single sample, which are not read again: `visual` is of the
                tokens behind them. Those of all tokens but the answer's last are added.

        Returns:
            The new tokens of each sample, (n,), its end token included.

        Raises:
            ValueError: The inputs do not match each other, or there is a streamer or key_values for several samples.
        """
        if key_values is not None:
            input_ids = input_ids[key_values.get_seq_length() :]
        layout = self.layout(_given(input_ids, segment_lengths, grid_thw, merge_sizes, keep_mask))
        lengths = list(layout.lengths)
        if streamer is not None and len(lengths) > 1:
            raise ValueError(f"a streamer for {len(lengths)} samples: stream one at a time")
        if key_values is not None and len(lengths) > 1:
            raise ValueError(f"key_values for {len(lengths)} samples: continue one at a time")
        embeds = torch.split(self.embed(input_ids, pixel_values, layout, visual)[0], lengths)
        settings = generation_config(self.language, max_new_tokens, temperature, top_p)
        return continue_prompts(self.language, embeds, settings, streamer, key_values)

    def enable_checkpointing(self) -> None:
        """Recompute activations in the backward pass: training uses less memory and more time."""
        self.vision.checkpointing = True
        self.language.gradient_checkpointing_enable({"use_reentrant": False})

    @classmethod
    def from_pretrained(cls, path: str | Path, dtype: torch.dtype | None = None) -> Self:
        """Load a model from a folder in transformers' or the original layout.

        Args:
            path: The folder.
            dtype: Type of the weights. Default: the type they were saved in. An export in bfloat16 of a training also
                has them in float32.

        Raises:
            UserError: The folder is not such a checkpoint, or it is incomplete.
        """
        folder = Path(path)
        weights = folder_in(folder, dtype)
        stored = open_model(weights)
        model = cls._without_weights(stored.config, dtype or stored.dtype)
        fill(model, stored.weights, weights, model._tied_names())
        model.language.generation_config = special_tokens(folder, model.language.generation_config)
        return model

    @classmethod
    def from_parts(cls, vision: str | Path, language: str | Path) -> Self:
        """Join an encoder, a language model and a new projector, to start a training. All are float32.

        Args:
            vision: A folder of VL3-SigLIP-NaViT, or of SigLIP, whose position table, head and text tower are dropped.
            language: A folder of Qwen2.5 or a similar model.

        Raises:
            UserError: A folder is not such a checkpoint.
        """
        model = cls(parts_config(Path(vision), Path(language)))
        fill(model.vision, encoder_tensors(Path(vision)), Path(vision), ())
        tied = [name.removeprefix("language.") for name in model._tied_names()]
        fill(model.language, tensors(Path(language)), Path(language), tied)
        model.language.generation_config = special_tokens(Path(language), model.language.generation_config)
        return model

    def save_pretrained(self, path: str | Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Save in transformers' layout: `VideoLlama3ForConditionalGeneration.from_pretrained(path)` opens it.

        Args:
            path: The folder; it is created if needed.
            weights: Weights to save instead of the model's, by the same names, such as gathered or cast ones.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.state_dict() if weights is None else weights
        stored = {name: weight for name, weight in weights.items() if name not in self._tied_names()}
        save_weights(stored, folder)
        write_config(self.config, folder, next(iter(stored.values())).dtype)
        self.language.generation_config.save_pretrained(folder)

    @classmethod
    def _without_weights(cls, config: ModelConfig, dtype: torch.dtype) -> Self:
        """Build a model with uninitialised weights: they are read from disk next."""
        from transformers.initialization import no_init_weights

        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with no_init_weights():
                model = cls(config)
            model.language.tie_weights()  # no_init_weights skips it
            return model.eval()
        finally:
            torch.set_default_dtype(default)

    def _tied_names(self) -> Sequence[str]:
        """Return the names of weights that share memory with another: the head, if tied to the embedding table."""
        return ["language.lm_head.weight"] if self.language.config.tie_word_embeddings else []


def _given(
    input_ids: Tensor,
    segment_lengths: Tensor | None,
    grid_thw: Tensor | None,
    merge_sizes: Tensor | None,
    keep_mask: Tensor | None,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the arguments that are not None, by name."""
    return {name: tensor for name, tensor in locals().items() if tensor is not None}
