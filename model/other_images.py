"""Samples with the images and videos of other samples. How much higher their loss is tells what a model sees."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from core.errors import BadSampleError
from model.prompt import Part
from model.training.data.samples import Sample
from model.training.data.source import SelectedRows


@dataclass(frozen=True)
class OtherImages:
    """The same questions and answers with other samples' media. It can be iterated repeatedly, with the same result.

    Samples are grouped by the number and kinds of their media. Those with the first media of a group get its second
    ones, and so on; those with the last ones get the first. So nobody gets what they had, also where several samples
    ask about one image. Samples without media, and those with media that nobody else can replace, are left out.
    """

    samples: SelectedRows

    def __iter__(self) -> Iterator[Sample]:
        lenders = self._lenders()
        for row in self.samples.rows:
            try:
                sample = self.samples.source.sample(row)
                lender = lenders.get(_key(media_of(sample)))
                borrowed = media_of(self.samples.source.sample(lender)) if lender is not None else []
            except BadSampleError:
                continue
            if borrowed:
                yield _with_media(sample, borrowed)

    def _lenders(self) -> dict[Hashable, int]:
        """Return the row whose media samples get, by the key of their own media."""
        groups: dict[Hashable, dict[Hashable, int]] = {}  # rows by the key of their media, by kinds of media
        for row in self.samples.rows:
            try:
                media = media_of(self.samples.source.sample(row))
            except BadSampleError:
                continue
            if media:
                groups.setdefault(tuple(part["type"] for part in media), {}).setdefault(_key(media), row)
        lenders: dict[Hashable, int] = {}
        for group in groups.values():
            rows = list(group.values())
            if len(rows) > 1:
                lenders |= dict(zip(group, rows[1:] + rows[:1], strict=True))
        return lenders


def media_of(sample: Sample) -> list[Part]:
    """Return all images and videos of a conversation, as message parts."""
    contents = [message["content"] for message in sample.conversation if not isinstance(message["content"], str)]
    return [part for parts in contents for part in parts if _is_media(part)]


def _is_media(part: Any) -> bool:
    return not isinstance(part, str) and part["type"] != "text"


def _key(media: list[Part]) -> Hashable:
    """Return what tells media apart: hashes of bytes, paths, and settings of videos."""
    return tuple(
        (name, hashlib.sha256(value).digest() if isinstance(value, bytes) else str(value))
        for part in media
        for name, value in part.items()
    )


def _with_media(sample: Sample, media: list[Part]) -> Sample:
    """Return a sample with other media in place of its own, in their order."""
    rest = iter(media)

    def replaced(content: Any) -> Any:
        return content if isinstance(content, str) else [next(rest) if _is_media(p) else p for p in content]

    conversation = [{**message, "content": replaced(message["content"])} for message in sample.conversation]
    return replace(sample, conversation=conversation)
