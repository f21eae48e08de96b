"""Look into the first tars of a pool, to say whether they hold images or films."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice

from core.errors import BadSampleError
from pipeline.pools.look import Look
from pipeline.pools.medium import FILMS, IMAGES
from pipeline.pools.tar_header import CheckedHeader

_TARS, _MEMBERS, _MEDIA = 4, 64, 8
"""Tars that are opened at most until one has media; members of it, and media, that are looked at."""


def kinds_in(look: Look, names: Sequence[str]) -> list[str]:
    """Return the nouns of the media (`image`, `film`) at the start of the first tar that has any."""
    for name in names[:_TARS]:
        if kinds := list(islice(_kinds(look, name), _MEDIA)):
            return kinds
    return []


def _kinds(look: Look, name: str) -> Iterator[str]:
    try:
        with look.open(name) as file, tarfile.open(fileobj=file, mode="r:", tarinfo=CheckedHeader) as archive:
            for member in islice(archive, _MEMBERS):
                if FILMS.is_candidate(member.name):
                    yield FILMS.noun
                elif IMAGES.is_candidate(member.name) and member.isreg():
                    yield IMAGES.noun
    except (OSError, BadSampleError, tarfile.TarError, ValueError, LookupError, OverflowError, MemoryError):
        return
