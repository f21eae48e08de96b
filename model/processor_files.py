"""A processor's files: transformers' layout, with our own settings in a file beside it that transformers ignores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from model.prompt import CHAT_TEMPLATE

if TYPE_CHECKING:
    from model.processor import Processor, Settings
    from model.tokenizer import Tokenizer

OURS = "vl3syn_processor.json"

_PIXELS = {
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


def save(processor: Processor, path: str | Path) -> None:
    """Write tokenizer, template, transformers' processor_config.json and our settings."""
    folder, settings = Path(path), processor.settings
    folder.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(processor.chat_template)
    image = {**_PIXELS, **_sizes(settings, "image"), "image_processor_type": "VideoLlama3ImageProcessor"}
    video = {
        **_PIXELS,
        **_sizes(settings, "video"),
        "video_processor_type": "VideoLlama3VideoProcessor",
        "fps": settings.fps,
        "max_frames": settings.max_frames,
        "min_frames": 1,
        "do_sample_frames": True,
        "return_metadata": True,
        "use_token_compression": settings.pruning is not None,
    }
    config = {"processor_class": "VideoLlama3Processor", "image_processor": image, "video_processor": video}
    (folder / "processor_config.json").write_text(json.dumps(config, indent=2))
    (folder / OURS).write_text(settings.model_dump_json(indent=2))


def load(path: str | Path) -> tuple[Tokenizer, Settings, str]:
    """Tokenizer, settings and template of a folder.

    Our settings if they are there, else transformers' or the original repository's as far as they are told.

    Raises:
        UserError: No folder, no tokenizer, or settings that are none.
    """
    from transformers import AutoTokenizer

    from model.processor import Settings

    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: give one with a tokenizer, such as save_pretrained writes")
    auto: Any = AutoTokenizer
    try:
        tokenizer = auto.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0]
        if "custom code" in reason:
            raise UserError(
                f"{folder}: its tokenizer is code of its own (auto_map in tokenizer_config.json), which is never run: "
                "give a folder whose tokenizer.json transformers opens by itself"
            ) from error
        raise UserError(f"{folder}: no tokenizer that can be read: {reason}; copy tokenizer.json there") from error
    ours, theirs = folder / OURS, _read(folder, "processor_config.json")
    if ours.is_file():
        settings = Settings.model_validate_json(ours.read_text())
    elif "image_processor" in theirs:
        settings = _from_transformers(theirs["image_processor"], theirs.get("video_processor") or {})
    elif (folder / "video_preprocessor_config.json").is_file():
        pair = _read(folder, "preprocessor_config.json"), _read(folder, "video_preprocessor_config.json")
        settings = _from_transformers(*pair)
    else:
        settings = _from_original(_read(folder, "preprocessor_config.json"), theirs)
    return tokenizer, settings, _template(folder, tokenizer, settings)


def _template(folder: Path, tokenizer: Tokenizer, settings: Settings) -> str:
    """The folder's own template if it places images as ours does, else ours: the original one numbers them itself."""
    file = folder / "chat_template.jinja"
    own = file.read_text() if file.is_file() else tokenizer.chat_template
    places = isinstance(own, str) and settings.image_token in own and settings.video_token in own
    return str(own) if places else CHAT_TEMPLATE


def _sizes(settings: Settings, kind: str) -> dict[str, Any]:
    """Transformers counts pixels where we count tokens."""
    limits = getattr(settings, kind)
    square = (settings.patch_size * limits.merge) ** 2
    size = {"shortest_edge": limits.min_tokens * square, "longest_edge": limits.max_tokens * square}
    return {"patch_size": settings.patch_size, "merge_size": limits.merge, "size": size}


def _from_transformers(image: dict[str, Any], video: dict[str, Any]) -> Settings:
    from model.processor import Limits, Settings
    from model.prune import Pruning

    patch = image.get("patch_size", 14)

    def limits(config: dict[str, Any], merge: int, fewest: int, most: int) -> Limits:
        merge = config.get("merge_size", merge)
        size, square = config.get("size", {}), (patch * merge) ** 2
        low = max(size.get("shortest_edge", fewest * square) // square, 1)
        return Limits(merge=merge, min_tokens=low, max_tokens=max(size.get("longest_edge", most * square) // square, 1))

    return Settings(
        patch_size=patch,
        image=limits(image, 1, 16, 5120),
        video=limits(video, 2, 128, 768),
        fps=video.get("fps") or 1.0,
        max_frames=video.get("max_frames", 180),
        pruning=Pruning() if video.get("use_token_compression", True) else None,
    )


def _from_original(image: dict[str, Any], processor: dict[str, Any]) -> Settings:
    from model.processor import Limits, Settings

    fewest, most = image.get("min_tokens", 16), image.get("max_tokens", 16384)
    return Settings(
        patch_size=image.get("patch_size", 14),
        image=Limits(merge=processor.get("image_merge_size", 1), min_tokens=fewest, max_tokens=most),
        video=Limits(merge=processor.get("video_merge_size", 2), min_tokens=fewest, max_tokens=most),
        max_tokens=most,
        fps=processor.get("fps", 1),
        max_frames=processor.get("max_frames", 180),
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    if not file.is_file():
        return {}
    try:
        told = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file}: no JSON: {error}; copy it again") from error
    return dict(told)
