"""Read XML of strangers: a document type could name other files and fill the memory, and is refused."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from core.errors import BadSampleError


def xml_root(text: str) -> ElementTree.Element:
    """Return the root of an XML.

    Raises:
        BadSampleError: It is no XML, or has a document type.
    """

    def refuse(*declaration: Any) -> None:
        raise BadSampleError("an XML with a document type: it is not read")

    checker = expat.ParserCreate()
    checker.StartDoctypeDeclHandler = refuse
    try:
        checker.Parse(text, True)
        return ElementTree.fromstring(text)
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise BadSampleError(f"no XML: {error}") from error


def whole_number(text: str | None) -> int | None:
    """Return a whole number of at most nine digits; None if the text is something else."""
    return int(text) if text and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", text) else None
