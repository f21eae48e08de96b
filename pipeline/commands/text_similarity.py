"""The stages that `vl3syn filter similarity` sets in a run's recipe: embeddings of images and texts, and cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.errors import UserError
from pipeline.commands.stage import entries_of, image_encoder_entry, stored_entry


def similarity_entries(
    url: str, encoder: str | None, texts: Sequence[str] | None, keep: dict[str, float | None], name: str | None = None
) -> list[dict[str, Any]]:
    """Return the entries of the stages that compare the images with texts, by one encoder.

    Args:
        url: The run.
        encoder: The encoder; None: that of the run.
        texts: The texts; None: those of the run's step, else the coarse caption and the alt text.
        keep: Rules, with `min` and `top` for the first text.
        name: The name of the step, which may be new; None: that of the run's `similarity`.

    Raises:
        UserError: The run has no coarse captions and needs them; the step compares with other texts already; or the run
            has no encoder, and `encoder` is None.
    """
    step = stored_entry(url, "similarity", name)
    compared = _texts_of(step) if step else None
    if compared and texts and tuple(texts) != compared:
        raise UserError(
            f"{url} compares with {', '.join(compared)} already: give --as and a new name, to compare with others too"
        )
    texts = tuple(texts or compared or _default_texts())
    if "coarse_caption" in texts and "coarse_caption" not in _written(url):
        raise UserError(
            f"{url} has no captions to compare with: run `vl3syn caption coarse` or `caption labels` first, or compare "
            "with the alt texts, by --texts alt_text"
        )
    return [*_embedding_entries(url, encoder, texts, name), {"as": name, **_similarity_entry(texts, keep)}]


def _similarity_entry(texts: tuple[str, ...], keep: dict[str, float | None]) -> dict[str, Any]:
    from filters.text_embeddings import similarity_of

    rules = {f"{key}_{similarity_of(texts[0])}" if key in ("min", "top") else key: keep[key] for key in keep}
    return {"stage": "similarity", "texts": list(texts), "keep": rules}


def _embedding_entries(url: str, encoder: str | None, texts: tuple[str, ...], name: str | None) -> list[dict[str, Any]]:
    """Return the entry that embeds the images, those of steps that embed some of the texts, and one for the others."""
    image, steps = image_encoder_entry(url, encoder), entries_of(url)
    by = image["stage"]
    settings = {"encoder": encoder or stored_entry(url, by)["encoder"]} if by == "clip" else {}
    text = {"stage": f"{by}_text", **settings}
    embedded = {t: step for step, entry in steps.items() if entry["stage"] == text["stage"] for t in _texts_of(entry)}
    entries = [image, *({**text, "as": step} for step in dict.fromkeys(embedded[t] for t in texts if t in embedded))]
    if others := [t for t in texts if t not in embedded]:
        new = f"{name or 'similarity'}_texts" if text["stage"] in steps else text["stage"]
        entries.append({**text, "as": new, "texts": others})
    return entries


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
