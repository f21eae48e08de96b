"""Tables as HTML, for notebooks. Foreign text (keys, errors, captions) is escaped and shortened."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from core.text import printable

_LONGEST = 2000  # characters of a cell


def html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table with a title, for `_repr_html_`.

    Args:
        title: One line above the table.
        columns: The heads of the columns.
        rows: Cells. Integers have separators and stand at the right, floats have five digits; None is an empty cell.
            Texts are shown literally: at most 2,000 characters, line ends kept.
    """
    heads = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<p><b>{_text(title)}</b></p><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td style="text-align: right">{_text(value)}</td>'
    return f"<td>{_text(value).replace(chr(10), '<br>')}</td>"


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return escape(printable(shown, keep="\n"))
