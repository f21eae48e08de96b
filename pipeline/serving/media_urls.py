"""The images and films that a request carries, as `data:` URLs or as files of a folder that the server was given.

Nothing is fetched: a request must not make the server open a connection or read any other file.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.errors import BadSampleError
from model.images import image_size
from model.training.data.media_root import MediaRoot

_SHOWN = 60  # characters of a URL in an error
_MOST_PIXELS = 400_000_000
"""Of all frames of a request, 190 of 1920 x 1080: they are in memory at once, at full size."""
_FRAMES = "video/jpeg"
"""vLLM's type of a film whose frames a client has chosen: `data:video/jpeg;base64,FRAME,FRAME,…`."""


class MediaUrls:
    """Reads the media of one request."""

    def __init__(self, folder: str | Path, root: str | Path | None = None) -> None:
        """Keep films in `folder`, which belongs to the request; allow `file://` URLs below `root`, None: none."""
        self._folder = Path(folder)
        self._root = MediaRoot(root) if root is not None else None
        self._films = self._pixels = 0

    def image(self, url: str) -> bytes | str:
        """Return an image: its encoded bytes, or its path.

        Raises:
            BadSampleError: It is no such URL, or lies outside of the folder.
        """
        if url.startswith("file:"):
            return self._media_root().file(_path(url))
        return _decoded(_payload(url)[1])

    def film(self, url: str) -> str | list[bytes]:
        """Return a film: its path, or its encoded frames.

        Raises:
            BadSampleError: As in `image`; or a frame has no readable header, or the request's frames are too large.
        """
        if url.startswith("file:"):
            return self._media_root().film(_path(url))
        kind, payload = _payload(url)
        if kind == _FRAMES:
            return [self._counted(_decoded(frame)) for frame in payload.split(",")]
        self._films += 1
        path = self._folder / f"film-{self._films}"  # no name of the client's: it could lead elsewhere
        path.write_bytes(_decoded(payload))
        return str(path)

    def _counted(self, frame: bytes) -> bytes:
        height, width = image_size(frame)
        self._pixels += height * width
        if self._pixels > _MOST_PIXELS:
            raise BadSampleError(f"frames of more than {_MOST_PIXELS:,} pixels in all: send fewer or smaller ones")
        return frame

    def _media_root(self) -> MediaRoot:
        if self._root is None:
            raise BadSampleError("file: URLs are not opened: send the medium as a data: URL, or start with --media DIR")
        return self._root


def _path(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:  # such as an unclosed bracket
        raise BadSampleError(f"{url[:_SHOWN]}: no URL: {error}") from error
    if parts.netloc not in ("", "localhost"):
        raise BadSampleError(f"{url[:_SHOWN]}: names another machine")
    return unquote(parts.path)


def _payload(url: str) -> tuple[str, str]:
    """Return the media type and the Base64 text of a `data:` URL."""
    head, comma, payload = url.partition(",")
    scheme, _, described = head.partition(":")
    if scheme.lower() != "data" or not comma:
        raise BadSampleError(f"{url[:_SHOWN]}: nothing is fetched: send the medium as data:image/jpeg;base64,…")
    kind, _, encoding = described.rpartition(";")
    if encoding.strip().lower() != "base64":
        raise BadSampleError(f"{head[:_SHOWN]}: must be Base64: data:image/jpeg;base64,…")
    return kind.partition(";")[0].strip().lower(), payload


def _decoded(payload: str) -> bytes:
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters that are not ASCII
        raise BadSampleError(f"a medium is not Base64: {error}") from error
