"""Rows of answers: the columns of every answer, and why an answer gives no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from captioners.chat_stage import ChatStage
from captioners.engines.base import Answer
from captioners.engines.finish import count
from captioners.markup import Stripped, is_blank, one_line
from core.secrets import redact
from manifests.schemas import ERROR, RETRY

_LONGEST_ERROR = 1000  # characters


def rows_table(stage: ChatStage, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Return rows as a table of the stage's columns, `error` and `retry`. Columns that a row lacks are null."""
    schema = pa.schema([*stage.writes, ERROR, RETRY])
    batch = pa.RecordBatch.from_struct_array(pa.array(rows, pa.struct(schema)))
    return pa.Table.from_batches([batch])


def answer_row(stage: ChatStage, prompt_hash: str, answer: Answer) -> dict[str, object]:
    """Return the columns that every answer has, by name: the prompt and the numbers of tokens."""
    return {
        f"{stage.use}_prompt": prompt_hash,
        f"{stage.use}_prompt_tokens": count(answer.prompt_tokens),
        f"{stage.use}_tokens": count(answer.tokens),
        f"{stage.use}_raw_characters": None if answer.error else len(answer.text),
    }


def text_row(stage: ChatStage, prompt_hash: str, answer: Answer) -> dict[str, object]:
    """Return the columns of an answer that is the text itself. A row without a text has an error."""
    common, stripped = answer_row(stage, prompt_hash, answer), stage.strip_answer(answer.text, answer.reasoned)
    if error := why_no_text(answer, stripped):
        return {**common, **failed(error, bool(answer.retry))}
    quality = stage.quality(stripped.text, bool(answer.cut) or stripped.thinking, bool(answer.refused))
    return {**common, stage.text: stripped.text, **quality, "error": None, "retry": False}


def failed(error: object, retry: bool = False) -> dict[str, object]:
    """Return `error` and `retry` of a row: the error in one line, without credentials.

    An engine of another package may have them in its error.
    """
    said = redact(one_line(str(error)))[:_LONGEST_ERROR]
    return {"error": said or "the engine gives an error without words", "retry": retry}


def why_no_text(answer: Answer, stripped: Stripped) -> object:
    """Return why an answer has no text: the engine's error, or that it is empty. None: it has one."""
    if answer.error or not is_blank(stripped.text):
        return answer.error
    return _why_empty(bool(answer.cut) or stripped.thinking, answer.reasoned or stripped.reasoned)


def _why_empty(cut: bool, reasoned: bool) -> str:
    if cut and reasoned:
        return "empty caption: cut while thinking; raise max_new_tokens, or have the model answer without reasoning"
    if reasoned:
        return "empty caption: the model ended it after its reasoning, before its first word"
    if cut:
        return "empty caption: cut before its first word"
    return "empty caption: the model ended it before its first word"
