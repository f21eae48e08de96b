"""BLIP3-OCR-200M: images by address, and what is written in them at twelve granularities, as JSON in a column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.turns import assistant, image, json_in, list_of_turns, text_of, user

QUESTION = "Read all text in the image."
WITH_PLACES = "Read all text in the image, with its places."


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record of the wanted granularity, or of each."""
    entry = row.entry
    uid = text_of(entry, "uid")
    captions = list_of_turns(json_in(entry, "captions"))
    wanted = options.get("granularity", "0")
    chosen = [caption for caption in captions if wanted in ("all", str(caption.get("granularity")))]
    if not chosen:
        raise BadSampleError(f"no such granularity: {wanted}; give --set granularity=0 to 11, or all")
    shown = image(f"{uid}.jpg")

    def draft(caption: Mapping[str, Any]) -> Draft:
        if caption.get("include_datacomp_raw_cap"):  # it has words that nobody can read there
            raise BadSampleError("a text with the web's alt text, which is not in the image")
        text = text_of(caption, "text").strip()
        question = WITH_PLACES if "<bbox>" in text else QUESTION
        said = [user(shown, f"\n{question}"), assistant(text)]
        aspect = f"granularity {caption.get('granularity')}"
        return Draft(said, [shown], original_id=uid, url=text_of(entry, "url", ""), task="ocr", aspect=aspect)

    yield from drafts_of(chosen, draft)


def _fits(entry: Mapping[str, Any]) -> bool:
    return {"uid", "url"} <= entry.keys() and isinstance(entry.get("captions"), str)


FORMAT = Format(
    name="blip3-ocr",
    about="BLIP3-OCR-200M: text in images of the web; a file of --media is named UID.jpg",
    read=read,
    fits=_fits,
    profiles=(Profile("blip3-ocr-200m", Licence(name="Apache-2.0")),),
    options={"granularity": "0 (default) to 11, as published; or all"},
)
