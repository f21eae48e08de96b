"""VL3-Syn7M's annotation files. Their keys are in no public document, so they are guessed, and ties are refused."""

from __future__ import annotations

from collections.abc import Iterator

from core.records import Licence
from model.training.data.forms import turns_of
from model.training.data.importers.embedded import take_embedded
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.guesses import image_key, is_address, text_key_of
from model.training.data.importers.turns import assistant, dialog_turns, image, said_of, text_of, user

QUESTION = "Describe the image."


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a row: an image and what is said of it."""
    entry = row.entry
    key = options.get("image") or image_key(entry)
    shown, embedded = take_embedded({"image": entry.get(key)})
    listed = shown["image"]
    path = listed[0] if isinstance(listed, list) and len(listed) == 1 else listed
    medium = image(path, root="records" if embedded else "media")
    turns, notes = entry.get("conversations") or entry.get("messages"), list[str]()
    if turns:
        said, notes = dialog_turns(said_of(turns_of({"conversations": turns})), [medium])
        text_key = "conversations" if entry.get("conversations") else "messages"
    else:
        text_key = options.get("text") or text_key_of(entry, key)
        said = [user(medium, options.get("question", QUESTION)), assistant(text_of(entry, text_key))]
    url = path if is_address(path) else ""
    guess = f"guessed that the image is in `{key}` and the text in `{text_key}`"
    yield Draft(
        said,
        [medium],
        original_id=entry.get("id", ""),
        url=url,
        task="caption",
        notes=[guess, *notes],
        embedded=embedded,
    )


FORMAT = Format(
    name="vl3syn7m",
    about="VL3-Syn7M's annotations; their keys are guessed",
    read=read,
    fits=lambda entry: False,  # a guess is nothing to be guessed
    profiles=(Profile("vl3-syn7m", Licence(name="Apache-2.0", generator="InternVL2")),),
    options={"image": "key of the image", "text": "key of the text", "question": f"default: {QUESTION}"},
)
