"""Correct the card of a publication whose images were removed, without the run that it was made from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from core.text import markdown
from manifests.removals import Takedown
from pipeline.publishing.publication import Publication

CARD = "README.md"
HEADING = "## Removed on request"
_BEFORE = "## Known limits"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
LARGEST = "n>10M"

_FRONT = re.compile(r"\A---\n(pretty_name: [^\n]*\n)(.*?\n)---\n", re.DOTALL)
_COUNT = re.compile(r"^[\d,]+(?= images with captions, chosen out of )", re.MULTILINE)
_TEXT_COUNT = re.compile(r"^[\d,]+(?= of the images, those with text\.)", re.MULTILINE)
_SECTION = re.compile(rf"^{HEADING}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def size_category(rows: int) -> str:
    """Return Hugging Face's name for a number of rows."""
    return next((label for limit, label in SIZES if rows < limit), LARGEST)


def removed_section(takedowns: Sequence[Takedown]) -> str:
    """Return the section of a card about what was removed; empty if nothing was. It names no image.

    Args:
        takedowns: All takedowns, oldest first. Reasons are only in it if their takedown has them.
    """
    removed = [takedown for takedown in takedowns if takedown.images]
    if not removed:
        return ""
    reasons = any(takedown.reasons for takedown in removed)
    lines = [("date", "images", "generation of their shards", "reasons"), ("---",) * 4]
    for takedown in removed:
        told = "; ".join(f"{count:,} {markdown(reason)}" for reason, count in takedown.reasons.items())
        lines.append((takedown.date, f"{takedown.images:,}", f"{takedown.generation}", told))
    table = "\n".join("| " + " | ".join(line if reasons else line[:-1]) + " |" for line in lines)
    return (
        f"{HEADING}\n\nThe shards that held these images were written anew without them. If you have an earlier copy, "
        f"replace it.\n\n{table}"
    )


def update_card(publication: Publication, takedowns: Sequence[Takedown]) -> None:
    """Write the number of images, the sizes of files, and the section about removed images into the card.

    A card that is missing is left missing, and what somebody has rewritten stays as it is.

    Args:
        publication: The publication.
        takedowns: All of its takedowns, oldest first.
    """
    out = publication.out
    if not out.exists(CARD):
        return
    text = out.read(CARD).decode(errors="replace")
    rows, sizes = publication.published().height, publication.sizes()
    text = _COUNT.sub(f"{rows:,}", text, count=1)
    text = _TEXT_COUNT.sub(f"{publication.count_with_text() or 0:,}", text, count=1)
    text = _FRONT.sub(lambda match: f"---\n{match[1]}{_front(match[2], rows, sizes)}---\n", text, count=1)
    text = _SECTION.sub("", text)
    section, (head, mark, rest) = removed_section(takedowns), text.partition(f"{_BEFORE}\n")
    if section:
        text = f"{head.rstrip()}\n\n{section}\n" + (f"\n{mark}{rest}" if mark else "")
    out.write(CARD, text.encode())


def _front(written: str, rows: int, sizes: Mapping[str, int]) -> str:
    try:
        front = yaml.safe_load(written)
    except yaml.YAMLError:
        return written
    if not isinstance(front, dict):
        return written
    front["size_categories"] = [size_category(rows)]
    for subset in front.get("dataset_info") or []:
        if isinstance(subset, dict) and "config_name" in subset:
            subset |= _content(subset, sizes)
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _content(subset: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return what tells these files from those before: `datasets` caches a folder by the front matter of its card."""
    shards = sorted((name, size) for name, size in sizes.items() if name.startswith(f"{subset['config_name']}/"))
    digest = hashlib.sha256(json.dumps([subset.get("description"), shards]).encode()).hexdigest()[:16]
    total = sum(size for _, size in shards)
    return {"description": f"{len(shards)} shards, content {digest}", "download_size": total}
