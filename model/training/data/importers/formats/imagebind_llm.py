"""ImageBind-LLM's list for pre-training: `url` and `caption`, with tabs, in a file that is named .csv."""

from __future__ import annotations

from collections.abc import Iterator

from model.training.data.importers.captioned import QUESTION, caption_draft
from model.training.data.importers.format import Draft, Format, Options, Row
from model.training.data.importers.guesses import is_address
from model.training.data.importers.turns import image, path_text, text_of


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a line. `url` may be a path; nothing is fetched."""
    entry = row.entry
    name = path_text(entry.get("url"))
    yield caption_draft(
        image(name), text_of(entry, "caption"), options, original_id=name, url=name if is_address(name) else ""
    )


FORMAT = Format(
    name="imagebind-llm",
    about="ImageBind-LLM's pre-training: url and caption, with tabs between (its Alpaca files are chat)",
    read=read,
    fits=lambda entry: entry.keys() == {"url", "caption"},
    options={"question": QUESTION},
)
