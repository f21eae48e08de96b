"""The only image decoder: stages, captioners, model, chat and evaluation see the same pixels.

A bad image gives one clear error, never a crash. The rules for pixels are:

* The first frame is used, turned upright by its EXIF orientation, in 8-bit RGB.
* Transparency is composited on white.
* 16-bit samples are cut to their upper 8 bits. A grey TIFF that declares another depth or maximum is scaled by it.
* 32-bit and float samples have no fixed white. White is the smallest of 1 (floats only), 255 and 65,535 that is not
  below the largest sample; above 65,535 it is the largest sample. Negative samples and NaN are black.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from core.image_header import FORMATS, BadImageError, Header, identify, orientation_of, read_header
from core.jpeg import scan_error

_OPENED = (*FORMATS, "WEBP", "ICO")
_CANVAS_AT_OPEN = (b"RIFF", b"\0\0\1\0")  # Pillow allocates the canvas of a WebP or an icon before it reports the size
_JPEG = ("JPEG", "MPO")
_QUALITY = 95  # of a JPEG that is encoded again
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_BITS, _LARGEST, _SAMPLE_FORMAT, _PHOTOMETRIC = 258, 281, 339, 262  # tags of TIFF
_SIGNED, _MIN_IS_WHITE = 2, 0  # values of the last two


def decode(data: bytes, side: int | None = None) -> Image.Image:
    """Decode one image: first frame, EXIF orientation applied, transparency on white, RGB.

    Args:
        data: The encoded image.
        side: Smallest shorter side, in pixels. A larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size if it stays at
            least this large. This happens in the frequency domain, at a fraction of the cost. None: every pixel.

    Raises:
        BadImageError: The bytes cannot be decoded, or have more pixels than is safe; the text is the row's error.
    """
    with _opened(data) as image:
        return _decoded(image, side)


def check_decodes(data: bytes) -> None:
    """Decode an image only to find errors: a JPEG at 1/8 of its size, which still reads all of its data.

    Raises:
        BadImageError: As in `decode`.
    """
    decode(data, 1)


def flatten(image: Image.Image) -> Image.Image:
    """Convert an image that Pillow has opened to upright RGB, as `decode` does."""
    return _upright_rgb(image, _turn(image))


def turns_sideways(image: Image.Image) -> bool:
    """Return whether `flatten` swaps width and height."""
    return _turn(image) in _SIDEWAYS


def portable(data: bytes, longest: int) -> bytes:
    """Return the image as bytes that any program displays correctly.

    Few programs apply the EXIF orientation, handle CMYK, or composite transparency on white. Such images, and those
    that are too large, are decoded with `decode` and encoded again as JPEG. All other bytes are returned unchanged, but
    only after a test decode, so that no undecodable image is sent anywhere.

    Args:
        data: The encoded image.
        longest: Largest longer side, in pixels; a larger image is scaled down.

    Returns:
        JPEG, PNG or WEBP bytes.

    Raises:
        BadImageError: As in `decode`.
    """
    with _opened(data) as image:
        if _shows_right(image, longest):
            _decoded(image, 1)  # as `check_decodes` does
            return data
        decoded = _decoded(image, longest)
    decoded.thumbnail((longest, longest))
    encoded = io.BytesIO()
    decoded.save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()


@contextmanager
def _opened(data: bytes) -> Iterator[ImageFile]:
    """Open an image that is safe to decode. All that goes wrong with it, also in the block, is a BadImageError."""
    try:
        if data[:4] in _CANVAS_AT_OPEN:
            _refuse_bomb(read_header(io.BytesIO(data)))
        with identify(io.BytesIO(data), _OPENED) as image:
            _refuse_bomb(Header(*image.size, format=image.format or "", animated=False))
            if image.format in _JPEG and (error := scan_error(data, image.width * image.height)):
                raise BadImageError(error)
            yield image
    except BadImageError:
        raise
    except Exception as error:  # decoders of hostile bytes may raise anything; each exception is this row's error
        raise BadImageError(f"undecodable: {' '.join(f'{type(error).__name__} {error}'.split())[:200]}") from error


def _decoded(image: ImageFile, side: int | None) -> Image.Image:
    """Return the pixels of an opened image; `side` is that of `decode`."""
    turn = _turn(image)
    if side is not None and image.format in _JPEG:
        image.draft(None, (side, side))
    return _upright_rgb(image, turn)


def _shows_right(image: ImageFile, longest: int) -> bool:
    if image.format not in ("JPEG", "PNG", "WEBP") or image.mode not in ("RGB", "L") or max(image.size) > longest:
        return False
    alone = getattr(image, "n_frames", 1) == 1 and "transparency" not in image.info
    return alone and orientation_of(image) not in _TURNS


def _refuse_bomb(header: Header) -> None:
    if header.bomb:
        raise BadImageError(header.bomb)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the turn that brings an image upright, or None.

    Call it before pixels are decoded: a PNG may have another EXIF chunk after its pixels.
    """
    return None if image.format == "TIFF" else _TURNS.get(orientation_of(image))  # Pillow turns a TIFF itself


def _upright_rgb(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    flat = _rgb(image)
    return flat if turn is None else flat.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    key = _transparent_key(image)
    image.load()
    if key is not None:
        image.info["transparency"] = key
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":  # convert() would clip these to white or black
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        seen = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")


def _transparent_key(image: Image.Image) -> Any:
    """Return the colour that marks transparent pixels of a PNG, scaled to 8 bits; None if no scaling is needed.

    PNG stores the colour in the bit depth of the samples, but Pillow compares it with 8-bit samples. Call this before
    the image loads.
    """
    key, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    raw = tiles[0].args if image.format == "PNG" and tiles else None
    if raw == "RGB;16B" and isinstance(key, tuple):
        return tuple(sample >> 8 for sample in key)
    if raw in ("L;2", "L;4") and isinstance(key, int):
        return key * 255 // ((1 << int(raw[-1])) - 1)
    return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert one channel of 16 or 32 bits to 8 bits, by the rules at the top of this module."""
    tags: Any = getattr(image, "tag_v2", {})
    samples: npt.NDArray[Any] = np.asarray(image)
    if image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT) != (_SIGNED,):
        samples = samples.view(np.uint32)  # Pillow has no unsigned mode
    white = _white(samples, tags)
    known = np.nan_to_num(samples.astype(np.float32), nan=0, posinf=white, neginf=0)
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        known = white - known
    scaled = np.rint(known / white * 255) if samples.dtype.kind == "f" else known * (256 / (white + 1))
    grey = np.clip(scaled, 0, 255).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):  # one sample value marks transparent pixels
        grey[samples == key] = 255
    return Image.fromarray(grey)


def _white(samples: npt.NDArray[Any], tags: Any) -> float:
    """Return the sample value that is shown as white."""
    is_float = samples.dtype.kind == "f"
    if not is_float and (samples.dtype.itemsize == 2 or not tags):  # PNG and PPM use 16 bits, also in Pillow's mode I
        bits = tags.get(_BITS, (16,))[0]
        declared = tags.get(_LARGEST, 0)
        largest = declared[0] if isinstance(declared, tuple) else declared
        return float(largest if 0 < samples.max(initial=0) <= largest < 1 << 16 else (1 << bits) - 1)
    finite = samples[np.isfinite(samples)]
    top = float(finite.max(initial=0))
    steps = (1.0, 255.0, 65535.0) if is_float else (255.0, 65535.0)
    return next((step for step in steps if top <= step), top)
