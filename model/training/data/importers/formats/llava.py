"""LLaVA's form and its kin: `conversations` of `from` and `value`, or `messages`, beside them `image` or `video`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.forms import media_of, turns_of
from model.training.data.importers.dialogs import dialog_of, pair_of
from model.training.data.importers.embedded import take_embedded
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.formats.videollama3 import CLIP_KEYS
from model.training.data.importers.turns import dialog_turns, media_of_paths, said_of, texts_of
from model.training.data.unread_keys import check_line


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry."""
    entry, embedded = take_embedded(row.entry)
    if unread := [key for key in ("stream", *CLIP_KEYS) if entry.get(key) is not None]:
        raise BadSampleError(f"a clip, a rate or a stream: `{unread[0]}`; import it as videollama3")
    images, videos = media_of(entry, "image"), media_of(entry, "video")
    media = [
        medium.model_copy(update={"root": "records"}) if medium.key in embedded else medium
        for medium in media_of_paths(images, videos)
    ]
    if entry.get("conversations") or entry.get("messages"):
        said = said_of(turns_of(entry))
    else:  # alpaca, query and response
        check_line(entry, [*images, *videos])
        said = dialog_of(entry)
    turns, notes = dialog_turns(said, media)
    subset = str(entry.get("data_source") or "")
    yield Draft(
        turns,
        media,
        original_id=entry.get("id", ""),
        subset=subset,
        references=texts_of(entry, "references"),
        notes=notes,
        embedded=embedded,
    )


def _fits(entry: Mapping[str, Any]) -> bool:
    turns = entry.get("conversations") or entry.get("messages")
    media = any(key in entry for key in ("image", "images", "video", "videos"))
    said = isinstance(turns, list) or pair_of(entry) is not None
    return media and said and not any(key in entry for key in ("stream", *CLIP_KEYS))


_HUB = "https://huggingface.co/datasets"
FORMAT = Format(
    name="llava",
    about="LLaVA, LLaVA-Video, OneVision, Video-LLaVA, Valley; LLaMA-Factory's and ms-swift's forms with media",
    read=read,
    fits=_fits,
    profiles=(
        Profile("llava-instruct-150k", Licence(terms_url=f"{_HUB}/liuhaotian/LLaVA-Instruct-150K", generator="gpt-4")),
        Profile("llava-665k", Licence(generator="gpt-4")),
        Profile("llava-video-178k", Licence(name="Apache-2.0", non_commercial=True, generator="gpt-4o")),
        Profile("llava-onevision", Licence(name="Apache-2.0")),
        Profile("video-llava", Licence(name="research preview", non_commercial=True)),
        Profile("valley", Licence(name="CC-BY-NC-4.0", non_commercial=True, gated=True)),
    ),
)
