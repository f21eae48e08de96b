"""Shapes of the model, and the presets: `tiny` (tests), `small` (minutes on a CPU), `2b` and `7b` (as published).

Sources of the numbers: arXiv 2501.13106 section 3, google/siglip-so400m-patch14-384, and Qwen2.5's config.json.
"""

from __future__ import annotations

import reprlib
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.errors import UserError
from core.settings import Settings

LARGEST = {
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "num_hidden_layers": 1024,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 1 << 14,
    "vocab_size": 1 << 24,
}
"""Largest sizes that are read from a file: far beyond any model, but not beyond what a machine can refuse quickly."""

LAST_ID = 2**31 - 1
"""Largest id of a token that is read from a file."""


class VisionConfig(Settings):
    """The vision encoder: SigLIP so400m without its position table and pooling head. Field names are transformers'.

    Attributes:
        hidden_size: Width C of a patch's vector.
        intermediate_size: Hidden width of the MLP.
        num_hidden_layers: Number of transformer blocks; all are used.
        num_attention_heads: Number of heads. hidden_size / heads must be a multiple of 4: rows and columns each rotate
            pairs.
        num_channels: Colour channels of a pixel.
        patch_size: Side of a patch, in pixels.
        layer_norm_eps: Epsilon of every LayerNorm.
        rope_theta: Base of the 2D rotary frequencies.
        attention_dropout: Share of attention weights that training drops. Only 0 can be trained.
    """

    hidden_size: int = Field(default=1152, ge=4, le=LARGEST["hidden_size"])
    intermediate_size: int = Field(default=4304, ge=1, le=LARGEST["intermediate_size"])
    num_hidden_layers: int = Field(default=27, ge=1, le=LARGEST["num_hidden_layers"])
    num_attention_heads: int = Field(default=16, ge=1, le=LARGEST["num_attention_heads"])
    num_channels: int = Field(default=3, ge=1, le=64)
    patch_size: int = Field(default=14, ge=1, le=1024)
    layer_norm_eps: float = Field(default=1e-6, gt=0)
    rope_theta: float = Field(default=10000.0, gt=1)
    attention_dropout: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (4 * self.num_attention_heads):
            raise UserError(
                f"hidden_size {self.hidden_size} must be a multiple of 4 x num_attention_heads "
                f"({self.num_attention_heads}): change one of them"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def patch_dim(self) -> int:
        """Number of values in a patch: channels x side x side."""
        return self.num_channels * self.patch_size**2


class LanguageSizes(Settings):
    """The sizes of a new language model. Field names are transformers'. The vocabulary is that of the tokenizer.

    Attributes:
        model_type: The kind of decoder.
        hidden_size: Width of a token's vector.
        intermediate_size: Hidden width of the MLP.
        num_hidden_layers: Number of transformer blocks.
        num_attention_heads: Number of heads of the queries.
        num_key_value_heads: Number of heads of keys and values. Default: as many as of the queries.
        head_dim: Width of one head. Default: hidden_size / num_attention_heads.
        rms_norm_eps: Epsilon of every RMSNorm.
        rope_theta: Base of the rotary frequencies.
        max_position_embeddings: Maximum tokens of a conversation; chat refuses longer ones.
        tie_word_embeddings: Use the embedding table as the output layer, too.
    """

    model_type: Literal["qwen2", "qwen3", "llama"] = "qwen2"
    hidden_size: int = Field(ge=4, le=LARGEST["hidden_size"])
    intermediate_size: int = Field(ge=1, le=LARGEST["intermediate_size"])
    num_hidden_layers: int = Field(ge=1, le=LARGEST["num_hidden_layers"])
    num_attention_heads: int = Field(ge=1, le=LARGEST["num_attention_heads"])
    num_key_value_heads: int | None = Field(default=None, ge=1, le=LARGEST["num_key_value_heads"])
    head_dim: int | None = Field(default=None, ge=2, le=LARGEST["head_dim"])
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    rope_theta: float = Field(default=1e6, gt=1)
    max_position_embeddings: int = Field(default=32768, ge=1, le=LAST_ID)
    tie_word_embeddings: bool = False

    @model_validator(mode="before")
    @classmethod
    def _no_vocabulary(cls, written: Any) -> Any:
        if isinstance(written, dict) and "vocab_size" in written:
            raise UserError("vocab_size: comes from the tokenizer: leave it out")
        return written

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if self.head_dim is None and self.hidden_size % heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {heads}: change one of them, or "
                "give head_dim"
            )
        if kv_heads and heads % kv_heads:
            raise UserError(
                f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}: change one of them"
            )
        head_dim = self.head_dim or self.hidden_size // heads
        if head_dim % 2:
            raise UserError(f"head_dim {head_dim}: rotary positions need an even one: change the sizes")
        return self

    def fields(self) -> dict[str, Any]:
        """Return the fields of a config.json of transformers, without those of the vocabulary."""
        fields = self.model_dump(exclude={"rope_theta"})
        fields["num_key_value_heads"] = self.num_key_value_heads or self.num_attention_heads
        fields["head_dim"] = self.head_dim or self.hidden_size // self.num_attention_heads
        fields["rope_parameters"] = {"rope_type": "default", "rope_theta": self.rope_theta}
        return fields


class ModelConfig(BaseModel):
    """The whole model.

    Attributes:
        vision: The encoder.
        language: config.json of a causal language model of transformers; `model_type` names its class.
        image_token_id: Id of the placeholder of an image's visual tokens.
        video_token_id: Id of the placeholder of a video's visual tokens; may be the same id.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vision: VisionConfig = VisionConfig()
    language: dict[str, Any]
    image_token_id: int = Field(default=151655, ge=0, le=LAST_ID)
    video_token_id: int = Field(default=151656, ge=0, le=LAST_ID)

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        for key, largest in LARGEST.items():
            size = self.language.get(key)
            if isinstance(size, int) and not 1 <= size <= largest:  # transformers checks the types
                raise UserError(f"{key} of the language model must be 1 to {largest:,}, not {reprlib.repr(size)}")
        return self


def preset(name: str) -> ModelConfig:
    """Return the configuration of a preset.

    Raises:
        UserError: There is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"no preset named {name!r}: use one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _qwen2(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, **others: Any) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "max_position_embeddings": 32768,
        "vocab_size": 151936,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "tie_word_embeddings": False,
        **others,
    }


PRESETS = {
    # Vocabulary and ids are those of `model.tokenizer.byte_tokenizer`.
    "tiny": ModelConfig(
        vision=VisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4),
        language=_qwen2(64, 128, 2, 4, 2, vocab_size=264, bos_token_id=256, eos_token_id=258, tie_word_embeddings=True),
        image_token_id=259,
        video_token_id=260,
    ),
    # 1.0 M parameters: memorises a hundred captions on a CPU in minutes, which `tiny` cannot.
    "small": ModelConfig(
        vision=VisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4),
        language=_qwen2(
            192, 512, 2, 4, 2, vocab_size=264, bos_token_id=256, eos_token_id=258, tie_word_embeddings=True
        ),
        image_token_id=259,
        video_token_id=260,
    ),
    # Qwen2.5-1.5B: 1,543,714,304 parameters; with encoder and projector 1.96 G, 3.92 GB in bf16.
    "2b": ModelConfig(language=_qwen2(1536, 8960, 28, 12, 2, tie_word_embeddings=True)),
    # Qwen2.5-7B: 7,615,616,512 parameters.
    "7b": ModelConfig(language=_qwen2(3584, 18944, 28, 28, 4, vocab_size=152064)),
}
