"""What a pool holds, images or films: how tars and Parquet files are searched for it, and how it is measured."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO, cast

import pyarrow as pa

from core.errors import BadSampleError
from core.file_window import FileWindow
from core.films import FILM_ENDINGS, FilmFile, FilmLostError
from core.image_header import MAX_BYTES
from pipeline.pools.cells import image_column
from pipeline.pools.film_cells import film_column
from pipeline.pools.listing import is_candidate
from pipeline.pools.rows import Row, measure

_IMAGE_START = 1 << 14  # bytes; they hold nearly every JPEG and PNG header


@dataclass(frozen=True)
class Medium:
    """A kind of media.

    Attributes:
        noun: What one is called, for messages.
        is_candidate: Whether a file of this name may be one.
        column: Chooses the column of a Parquet file; the second argument is the name that the pool's settings give.
        measure: Returns columns of the index from the bytes of one.
        measure_part: The same for a part of a file: the file, where the part starts, and its length.
    """

    noun: str
    is_candidate: Callable[[str], bool]
    column: Callable[[pa.Schema, str | None], str]
    measure: Callable[[bytes], Row]
    measure_part: Callable[[BinaryIO, int, int], Row]


def is_film(name: str) -> bool:
    """Return whether a file or tar member of this name may be a film."""
    return PurePosixPath(name).suffix.lower() in FILM_ENDINGS


def measure_film(film: FilmFile) -> Row:
    """Return length, size, rate and other values of a film's header, or its error.

    Raises:
        OSError: The disk or the network failed.
    """
    from core.film_header import read_film_header

    try:
        header = read_film_header(film)
    except FilmLostError as error:
        raise error.__cause__ or OSError(str(error)) from error
    except BadSampleError as error:
        return {"bytes": film.length, "error": str(error).removeprefix(f"{film}: ")}
    return {
        "bytes": film.length,
        "width": header.width,
        "height": header.height,
        "format": header.container,
        "duration": header.duration,
        "fps": header.fps,
        "frame_count": header.frames,
        "codec": header.codec,
        "has_audio": header.has_audio,
        "variable_rate": header.variable_rate,
    }


def _measure_image_part(file: BinaryIO, start: int, length: int) -> Row:
    file.seek(start)
    data = file.read(min(length, _IMAGE_START))
    if length <= MAX_BYTES and data.startswith((b"\xff\xd8\xff", b"\x89PNG")):  # JPEG and PNG need no more
        row = {**measure(data), "bytes": length}
        if "width" in row or len(data) == length:
            return row
    return measure(cast(BinaryIO, io.BufferedReader(FileWindow(file, start, length, owner=False))), length)


def _measure_film_bytes(data: bytes) -> Row:
    return measure_film(FilmFile("film", open=partial(io.BytesIO, data), length=len(data)))


def _measure_film_part(file: BinaryIO, start: int, length: int) -> Row:
    part = partial(FileWindow, file, start, length, owner=False)
    return measure_film(FilmFile("film", open=cast(Callable[[], BinaryIO], part), length=length))


IMAGES = Medium("image", is_candidate, image_column, measure, _measure_image_part)
FILMS = Medium("film", is_film, film_column, _measure_film_bytes, _measure_film_part)
