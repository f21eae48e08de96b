"""The stages that `vl3syn filter concepts` sets in a run's recipe: embeddings of images, and their concepts."""

from __future__ import annotations

from typing import Any

from core.errors import UserError
from pipeline.commands.stage import image_encoder_entry, stored_entry


def concept_entries(
    url: str, encoder: str | None, settings: dict[str, Any], keep: dict[str, int | None]
) -> list[dict[str, Any]]:
    """Return the entries of the stages `clip` or `conse`, and `concepts` by the same encoder.

    Args:
        url: The run.
        encoder: The encoder; None: that of the run.
        settings: Settings of `concepts`; None keeps what the run has. A vocabulary that is given is read again.
        keep: Rules.

    Raises:
        UserError: There is no vocabulary yet; it cannot be read; or the run has no encoder, and `encoder` is None.
    """
    from filters.vocabulary import content_hash, read_vocabulary

    if not (settings.get("vocabulary") or stored_entry(url, "concepts")):
        raise UserError("give --vocabulary, a file with one concept a line, or imagenet")
    image = image_encoder_entry(url, encoder)
    by_clip = image["stage"] == "clip"
    of_clip = encoder or (stored_entry(url, "clip")["encoder"] if by_clip else None)
    vocabulary = settings.get("vocabulary")
    content = {"content": content_hash(read_vocabulary(vocabulary))} if vocabulary else {}
    by = {"encoder": of_clip if by_clip else "conse"}
    return [image, {"stage": "concepts", **settings, **by, **content, "keep": keep}]
