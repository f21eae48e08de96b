"""The stages that `vl3syn filter similarity` sets in a run's recipe: embeddings of images and texts, and cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.errors import UserError
from pipeline.commands.stage import entries_of, image_encoder_entry


def similarity_entries(
    url: str, encoder: str | None, texts: Sequence[str] | None, keep: dict[str, float | None]
) -> list[dict[str, Any]]:
    """Return the entries of the stages that compare the images with texts, by one encoder.

    Args:
        url: The run.
        encoder: The encoder; None: that of the run.
        texts: The texts; None: those of the run's stage `similarity`, else the coarse caption and the alt text.
        keep: Rules, with `min` and `top` for the first text.

    Raises:
        UserError: The run has no coarse captions and needs them; it compares with other texts already; or it has no
            encoder, and `encoder` is None.
    """
    entries = entries_of(url)
    compared = _texts_of(entries["similarity"]) if "similarity" in entries else None
    if compared and texts and tuple(texts) != compared:
        raise UserError(f"{url} compares with {', '.join(compared)} already: change `texts` in a recipe and run it")
    texts = tuple(texts or compared or _default_texts())
    if "coarse_caption" in texts and "coarse_caption" not in _written(url):
        raise UserError(
            f"{url} has no captions to compare with: run `vl3syn caption coarse` or `caption labels` first, or compare "
            "with the alt texts, by --texts alt_text"
        )
    return [*_embedding_entries(url, encoder, texts), _similarity_entry(texts, keep)]


def _similarity_entry(texts: tuple[str, ...], keep: dict[str, float | None]) -> dict[str, Any]:
    from filters.text_embeddings import similarity_of

    rules = {f"{key}_{similarity_of(texts[0])}" if key in ("min", "top") else key: keep[key] for key in keep}
    return {"stage": "similarity", "texts": list(texts), "keep": rules}


def _embedding_entries(url: str, encoder: str | None, texts: tuple[str, ...]) -> list[dict[str, Any]]:
    image = image_encoder_entry(url, encoder)
    by = image["stage"]
    settings = {"encoder": encoder or entries_of(url)["clip"]["encoder"]} if by == "clip" else {}
    return [image, {"stage": f"{by}_text", **settings, "texts": list(texts)}]


def _texts_of(entry: dict[str, Any]) -> tuple[str, ...]:
    return tuple(entry.get("texts") or _default_texts())


def _default_texts() -> tuple[str, ...]:
    from filters.text_embeddings import DEFAULT_TEXTS

    return DEFAULT_TEXTS


def _written(url: str) -> set[str]:
    """Return the columns that the stages of the run write."""
    from manifests import open_run
    from pipeline.execution.runner import recipe_of

    return {name for step in recipe_of(open_run(url)).steps for name in step.stage.writes.names}
