"""Pages of a TIFF, which may have many, as PNG."""

from __future__ import annotations

import io
import struct

from core.errors import BadSampleError
from core.image_header import Header, identify
from core.images import flatten

_DECODE_ERRORS = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error)


def page_png(data: bytes, number: int) -> bytes:
    """Return a page, counted from 0.

    Raises:
        BadSampleError: There is no such page, or it cannot be decoded, or has more pixels than is safe.
    """
    png = io.BytesIO()
    try:
        with identify(io.BytesIO(data), ("TIFF",)) as image:
            image.seek(number)
            if bomb := Header(*image.size, format="TIFF", animated=False).bomb:
                raise BadSampleError(bomb)
            flatten(image).save(png, "PNG")
    except BadSampleError:
        raise
    except _DECODE_ERRORS as error:
        raise BadSampleError(f"no page in the TIFF: page {number + 1}: {error or type(error).__name__}") from error
    return png.getvalue()
