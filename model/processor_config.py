"""Settings of a processor, and its files.

The files have transformers' layout. Our own settings are in one more file, which transformers ignores.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.errors import UserError, reading
from core.frame_sampling import Sampling
from core.paths import check_path
from model.prompt import CHAT_TEMPLATE
from model.prune import Pruning
from model.tokenizer import Tokenizer

OURS = "vl3syn_processor.json"

PIXELS = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 3,  # bicubic
    "rescale_factor": 1 / 255,
    "temporal_patch_size": 1,
}
"""Settings of preprocessors that make the pixels that ours makes."""


class TokenLimits(BaseModel):
    """Limits on the visual tokens of images, or of videos.

    Attributes:
        merge: Side of the block of patches that becomes one token: 1 or 2.
        min_tokens: Minimum tokens of an image, or of each frame of a video if its maximum allows that.
        max_tokens: Maximum tokens of an image, or of all frames of a video together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    merge: int = Field(default=1, ge=1, le=2)
    min_tokens: int = Field(default=16, ge=1)
    max_tokens: int = Field(default=16384, ge=1)


class ProcessorConfig(BaseModel):
    """Settings of a processor. Defaults are the published ones for inference.

    Attributes:
        patch_size: Side of a patch, in pixels.
        image: Limits of images. Merge size 1 as released; stage 4 was trained with 2.
        video: Limits of videos. Merge size 2.
        max_tokens: Maximum visual tokens of a conversation, before pruning: 10,240 in training, 16,384 in evaluation.
        fps: Frames per second that are sampled from a video.
        max_frames: Maximum frames of a video.
        sampling: Which frame stands for a sampled time: `exact`, the one on display, or `original`, the last one before
            the next sampled time, which the published weights were trained with.
        pruning: DiffFP settings for videos; None keeps all tokens.
        image_token: Placeholder of one visual token of an image.
        video_token: Placeholder of one visual token of a video.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patch_size: int = Field(default=14, ge=1)
    image: TokenLimits = TokenLimits()
    video: TokenLimits = TokenLimits(merge=2)
    max_tokens: int = Field(default=16384, ge=1)
    fps: float = Field(default=1.0, gt=0)
    max_frames: int = Field(default=180, ge=1)
    sampling: Sampling = "exact"
    pruning: Pruning | None = Pruning()
    image_token: str = "<|image_pad|>"
    video_token: str = "<|video_pad|>"


def write_processor(path: str | Path, tokenizer: Tokenizer, config: ProcessorConfig, chat_template: str) -> None:
    """Write the tokenizer, the template, transformers' processor_config.json, and our settings."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(chat_template)
    image = {**PIXELS, **_sizes(config, "image"), "image_processor_type": "VideoLlama3ImageProcessor"}
    video = {
        **PIXELS,
        **_sizes(config, "video"),
        "video_processor_type": "VideoLlama3VideoProcessor",
        "fps": config.fps,
        "max_frames": config.max_frames,
        "min_frames": 1,
        "do_sample_frames": True,
        "return_metadata": True,
        "use_token_compression": config.pruning is not None,
    }
    layout = {"processor_class": "VideoLlama3Processor", "image_processor": image, "video_processor": video}
    (folder / "processor_config.json").write_text(json.dumps(layout, indent=2))
    (folder / OURS).write_text(config.model_dump_json(indent=2))


def read_processor(path: str | Path) -> tuple[Tokenizer, ProcessorConfig, str]:
    """Read the tokenizer, the settings and the chat template of a folder.

    The settings are ours if present, else transformers' or the original repository's, with defaults for missing ones.
    With either of these, the weights are taken for published ones, which learned `original` sampling. A folder with a
    tokenizer alone is for a new model.

    Raises:
        UserError: There is no folder, no tokenizer, or the settings are invalid.
    """
    from transformers import AutoTokenizer

    folder = Path(check_path(path))
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: give one with a tokenizer, such as save_pretrained writes")
    auto: Any = AutoTokenizer
    try:
        tokenizer = auto.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        if "custom code" in reason:
            raise UserError(
                f"{folder}: its tokenizer is code of its own (auto_map in tokenizer_config.json), which is never run: "
                "give a folder whose tokenizer.json transformers opens by itself"
            ) from error
        raise UserError(f"{folder}: no tokenizer that can be read: {reason}; copy tokenizer.json there") from error
    config = _config(folder)
    with reading(folder / "chat_template.jinja"):
        return tokenizer, config, _template(folder, tokenizer, config)


def _config(folder: Path) -> ProcessorConfig:
    ours, theirs = folder / OURS, _read(folder, "processor_config.json")
    if ours.is_file():
        with reading(ours):
            return ProcessorConfig.model_validate_json(ours.read_text())
    if "image_processor" in theirs:
        file = folder / "processor_config.json"
        with reading(file):
            image, video = theirs["image_processor"], theirs.get("video_processor") or {}
            _check_pixels(image, file)
            _check_pixels(video, file)
            return _from_transformers(image, video)
    image, video = (_read(folder, f"{kind}preprocessor_config.json") for kind in ("", "video_"))
    with reading(folder / "preprocessor_config.json"):
        _check_pixels(image, folder / "preprocessor_config.json")
        _check_pixels(video, folder / "video_preprocessor_config.json")
        if video:
            return _from_transformers(image, video)
        model = _read(folder, "config.json")
        return _from_original(image, theirs, pruned=bool(model.get("use_token_compression", True)))


def _check_pixels(stored: dict[str, Any], file: Path) -> None:
    """Check that a preprocessor makes the pixels that ours makes.

    Raises:
        UserError: A setting differs.
    """
    for key, ours in PIXELS.items():
        value = stored.get(key)
        if key in ("image_mean", "image_std") and isinstance(value, int | float):
            value = [value] * 3  # transformers allows one number for all channels
        if value is not None and not _equal(value, ours):
            raise UserError(f"{file}: {key} {value}: only {ours} is supported, what VideoLLaMA3 was trained with")


def _equal(value: Any, ours: Any) -> bool:
    """Whether two settings are equal; numbers may be rounded."""
    if isinstance(ours, float) and isinstance(value, int | float):
        return math.isclose(value, ours, rel_tol=1e-6)
    return bool(value == ours)


def _template(folder: Path, tokenizer: Tokenizer, config: ProcessorConfig) -> str:
    """Return the folder's chat template if it has both placeholders, else ours: the original numbers images itself."""
    file = folder / "chat_template.jinja"
    template = file.read_text() if file.is_file() else tokenizer.chat_template
    places = isinstance(template, str) and config.image_token in template and config.video_token in template
    return str(template) if places else CHAT_TEMPLATE


def _sizes(config: ProcessorConfig, kind: str) -> dict[str, Any]:
    """Convert our limits in tokens to transformers' limits in pixels."""
    limits = getattr(config, kind)
    square = (config.patch_size * limits.merge) ** 2
    size = {"shortest_edge": limits.min_tokens * square, "longest_edge": limits.max_tokens * square}
    return {"patch_size": config.patch_size, "merge_size": limits.merge, "size": size}


def _from_transformers(image: dict[str, Any], video: dict[str, Any]) -> ProcessorConfig:
    patch = image.get("patch_size", 14)

    def limits(config: dict[str, Any], merge: int, fewest: int, most: int) -> TokenLimits:
        merge = config.get("merge_size", merge)
        size, square = config.get("size") or {}, (patch * merge) ** 2
        low = config.get("min_pixels") or size.get("shortest_edge", fewest * square)
        high = config.get("max_pixels") or size.get("longest_edge", most * square)
        return TokenLimits(merge=merge, min_tokens=max(low // square, 1), max_tokens=max(high // square, 1))

    return ProcessorConfig(
        patch_size=patch,
        image=limits(image, 1, 16, 5120),
        video=limits(video, 2, 128, 768),
        fps=video.get("fps") or 1.0,
        max_frames=video.get("max_frames", 180),
        sampling="original",
        pruning=Pruning() if video.get("use_token_compression", True) else None,
    )


def _from_original(image: dict[str, Any], processor: dict[str, Any], pruned: bool) -> ProcessorConfig:
    fewest, most = image.get("min_tokens", 16), image.get("max_tokens", 16384)
    return ProcessorConfig(
        patch_size=image.get("patch_size", 14),
        image=TokenLimits(merge=processor.get("image_merge_size", 1), min_tokens=fewest, max_tokens=most),
        video=TokenLimits(merge=processor.get("video_merge_size", 2), min_tokens=fewest, max_tokens=most),
        max_tokens=most,
        fps=processor.get("fps", 1),
        max_frames=processor.get("max_frames", 180),
        sampling="original" if image or processor else "exact",
        pruning=Pruning() if pruned else None,
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: no JSON object: {error}; copy it again") from error
