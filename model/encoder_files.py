"""Write the encoder alone in the layout of VL3-SigLIP-NaViT, from which another training may begin."""

from __future__ import annotations

import json
from pathlib import Path

from model.processor_config import PIXELS, ProcessorConfig
from model.vision import VisionEncoder
from model.weights_io import ENCODER, save_weights

_ROPE_THETA = 10000.0  # the original's, which has no field for it


def save_encoder(encoder: VisionEncoder, config: ProcessorConfig, path: str | Path) -> None:
    """Save an encoder in the original's layout: `VideoLLaMA3.from_parts(path, …)` and `vision: DIR` in recipes open it.

    Code is not stored: to open the folder by AutoModel, copy the original's three Python files and `auto_map` there.

    Args:
        encoder: The encoder, such as `model.vision`.
        config: Settings of the processor that it was trained with, such as `processor.config`.
        path: The folder; it is created if needed.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(encoder.state_dict(), folder, ENCODER)
    fields = encoder.config.model_dump(exclude={"rope_theta"})
    if encoder.config.rope_theta != _ROPE_THETA:
        fields["rope_parameters"] = {"rope_type": "axial", "rope_theta": encoder.config.rope_theta}
    stored = {
        "architectures": ["Videollama3VisionEncoderModel"],
        "model_type": "videollama3_vision_encoder",
        **fields,
        "hidden_act": "gelu_pytorch_tanh",
        "torch_dtype": str(encoder.post_layernorm.weight.dtype).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(stored, indent=2))
    pixels = {key: value for key, value in PIXELS.items() if key != "temporal_patch_size"}
    tokens = {"min_tokens": config.image.min_tokens, "max_tokens": config.max_tokens}
    settings = {
        "image_processor_type": "Videollama3ImageProcessor",
        **pixels,
        "patch_size": config.patch_size,
        **tokens,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))
