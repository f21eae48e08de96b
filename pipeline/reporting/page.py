"""HTML pages that stand alone: rendered by Jinja2 with escaping, written in one piece.

A page has no script and loads nothing: its policy (`templates/base.html`) forbids both, and pictures are data URIs. The
one page with a script of ours, on which people mark images, names it by its hash (`review.py`).
Keys, captions, URLs and errors come from the web: every text that a template prints is escaped, cut and made visible
here, whatever the template does.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.paths import check_replaceable
from core.text import printable
from manifests.storage import Folder

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

LONGEST_TEXT = 2000
"""Characters of a text that a page shows at most."""

LONGEST_LIST = 100_000
"""The same of a text with many lines, such as the recipe."""


def render(template: str, **values: object) -> str:
    """Return the page that a template of `templates/` makes of `values`.

    Args:
        template: Name of the template, such as `report.html`.
        values: What the template prints. Texts are escaped; HTML is a `markupsafe.Markup`, which stays as it is.

    Raises:
        UserError: Jinja2 is not installed.
    """
    return environment().get_template(template).render(**values)


@cache
def environment() -> Environment:
    """Return Jinja2's environment of all pages.

    Raises:
        UserError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise missing("jinja2") from error
    made = Environment(
        loader=PackageLoader("pipeline.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shortened": shortened, "number": number, "share": share, "change": change, "long": long}
    return made


def missing(package: str) -> UserError:
    """Return the error for a package that pages need and that is not installed."""
    return UserError(f"{package} is not installed, which pages need: pip install 'vl3syn[report]'")


def check_target(where: str) -> None:
    """Check that a page can be written there, before the work for it begins. Nothing is written.

    Args:
        where: As in `write`. Of an object store it is only checked whether it answers.

    Raises:
        UserError: It is no path or URL of a file, a folder is there, or its folder cannot be made or written.
    """
    folder, name = _target(where)
    if not folder.local:
        folder.exists(name)
        return
    check_replaceable(f"{folder.path}/{name}")
    path = Path(folder.path)
    above = next(each for each in (path, *path.parents) if each.exists())
    if not above.is_dir():
        raise UserError(f"{where}: {above} is not a folder: name another file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{where}: {above} cannot be written: name another file")


def write(where: str, page: str) -> int:
    """Write a page as one file, atomically; return its length in bytes.

    Args:
        where: A local path, or a URL that `Folder.at` knows.
        page: The page.

    Raises:
        UserError: It is no path or URL of a file, its folder cannot be made, or its file system cannot be written.
    """
    folder, name = _target(where)
    data = page.encode()
    try:
        folder.write(name, data)
    except NotImplementedError as error:  # fsspec's, such as github://
        raise _read_only(where) from error
    return len(data)


def _target(where: str) -> tuple[Folder, str]:
    """Return the folder and the name of a file that is to be written."""
    folder, name = os.path.split(where)
    if not name or ("://" in where and folder.endswith(":")):  # s3://bucket
        raise UserError(f"{where}: name a file, such as {os.path.join(where, 'report.html')}")
    if where.startswith(("http://", "https://")):
        raise _read_only(where)
    return Folder.at(folder or "."), name


def _read_only(where: str) -> UserError:
    return UserError(f"{where}: its file system can only be read: name another file")


def visible(value: Any) -> Any:
    """Return a value that a template prints: of a text at most `LONGEST_TEXT` characters, all of them visible.

    Characters that control the direction or are invisible become U+FFFD (`core.text.printable`). Other types and HTML
    (`Markup`) stay as they are.
    """
    return shortened(value, LONGEST_TEXT) if type(value) is str else value


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, with an ellipsis where it is cut, all of them visible."""
    cut = text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"
    return printable(cut, keep="\n")


def number(value: float | None) -> str:
    """Format a number for people: `12,345`, `0.4562`, `–` for none."""
    if value is None:
        return "–"
    if isinstance(value, int) or value.is_integer() or abs(value) >= 1e5:
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def share(part: int, whole: int) -> str:
    """Format a fraction of a positive number: `44.8 %`."""
    return f"{100 * part / whole:.1f} %"


def change(value: int, before: int) -> str:
    """Format a difference with its sign: `+1,200`, `−35`, `±0`."""
    sign = "+" if value > before else "−" if value < before else "±"
    return f"{sign}{abs(value - before):,}"


def long(text: str) -> Markup:
    """Return the HTML of a text of the run itself, such as its recipe: escaped and visible, up to `LONGEST_LIST`."""
    from markupsafe import escape

    return escape(shortened(text, LONGEST_LIST))
