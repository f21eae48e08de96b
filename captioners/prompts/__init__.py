"""Read prompts from files, identify them by their hash, and assign them to images by id."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from core.control_tokens import find_control_tokens
from core.errors import UserError, suggest


def read_prompts(source: str) -> tuple[str, ...]:
    """Read the prompts of a file: paragraphs separated by blank lines; lines that start with `#` are comments.

    Args:
        source: A path, or the name of a built-in file: `short`, `detailed`, `ocr`, `dense`, `summary`.

    Raises:
        UserError: The file cannot be read, or has no prompt.
    """
    ours = {
        file.name.removesuffix(".txt"): file
        for file in files("captioners").joinpath("prompts").iterdir()
        if file.name.endswith(".txt")
    }
    try:
        text = (ours.get(source) or Path(source).expanduser()).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        hint = suggest(source, ours) or f"; ours are {', '.join(sorted(ours))}"
        raise UserError(f"{source!r} is no readable file of prompts{hint}") from error
    kept = "\n".join(line.rstrip() for line in text.splitlines() if not line.startswith("#"))
    prompts = tuple(paragraph.strip() for paragraph in kept.split("\n\n") if paragraph.strip())
    if not prompts:
        raise UserError(f"{source}: no prompt in it; write some, with blank lines between them")
    return prompts


def check_prompts(prompts: Sequence[str], what: str) -> None:
    """Refuse prompts with control tokens: servers and trainers read an `<image>` in a prompt as a second image.

    Args:
        prompts: The prompts.
        what: Where they come from, for the error.

    Raises:
        UserError: A prompt has a control token.
    """
    for prompt in prompts:
        if tokens := find_control_tokens(prompt):
            raise UserError(
                f"{what}: {prompt[:60]!r} has the control token {tokens[0]}; take it out, the image comes by itself"
            )


def prompt_hash(prompt: str) -> str:
    """Return the identifier of a prompt: the first eight hex digits of its SHA-256."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:8]


def choose(prompts: Sequence[str], id_: int) -> str:
    """Return the prompt of an image: an id always gets the same one, and each prompt gets about as many images."""
    number = int.from_bytes(hashlib.blake2b(str(id_).encode(), digest_size=8).digest())
    return prompts[number % len(prompts)]
