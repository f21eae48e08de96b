"""LaViLa's narrations as JSON: `[film, start, end, text]`, or with several texts of its rephraser or narrator.

They are published as pickles, which can run code and are refused: write them as JSON lines where you trust them.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator

from core.errors import BadSampleError
from core.records import Licence, Medium
from model.training.data.importers.captioned import ADDED, ENDING, QUESTION, caption_draft
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.narrations import CLEANED, clean
from model.training.data.importers.turns import path_text, seconds_of, text_of, video

SCORES = "likelihoods of the texts were left out"


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record for each text of a clip."""
    value = row.value
    if not isinstance(value, list) or len(value) not in (4, 5):
        raise BadSampleError(f"no narration: give [film, start, end, text], not {reprlib.repr(value)}")
    named = dict(zip(("film", "start", "end", "text"), value, strict=False))
    film = _film(path_text(named["film"]), seconds_of(named, "start"), seconds_of(named, "end"), options)
    texts = named["text"] if isinstance(named["text"], list) else [named["text"]]
    notes = [SCORES] if len(value) == 5 else []

    def draft(text: object) -> Draft:
        said = clean(text_of({"text": text}, "text"))
        made = caption_draft(film, said, options, original_id=named["film"], notes=notes)
        return Draft(
            made.turns, made.media, original_id=named["film"], task="caption", transforms=(ADDED, CLEANED), notes=notes
        )

    yield from drafts_of(texts, draft)


def _film(name: str, start: float, end: float, options: Options) -> Medium:
    """Return the clip: of the whole film, or of its chunk, `<film>.mp4/300.mp4`, on the chunk's clock."""
    if "chunks" not in options:
        return video(name + options.get("ending", ""), start=start, end=end)
    if not (length := int(seconds_of(options, "chunks"))):
        raise BadSampleError("chunks of no length: give --set chunks=300")
    first = int(start // length) * length
    if end > first + length:
        raise BadSampleError(f"a clip over the border of two chunks: {start:g}-{end:g} s in chunks of {length} s")
    return video(f"{name}.mp4/{first}.mp4", start=round(start - first, 6), end=round(end - first, 6))


FORMAT = Format(
    name="lavila",
    about="LaViLa's narrations, its rephraser's and narrator's, as JSON (its pickles are refused)",
    read=read,
    fits=lambda entry: False,  # its rows are lists
    profiles=(Profile("lavila", Licence(name="Ego4D's own", gated=True)),),
    options={"chunks": "seconds of the chunks that films are cut into, 300", "question": QUESTION, "ending": ENDING},
)
