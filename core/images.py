"""Encoded bytes to an upright RGB image, whatever the bytes are: a bad image is one clear error, never a crash."""

from __future__ import annotations

import io

from PIL import Image

from core.image_header import FORMATS, MAX_PIXELS, BadImageError, orientation_of

_OPENED = (*FORMATS, "WEBP", "ICO")
_QUALITY = 95  # of a JPEG that is encoded anew
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, side: int | None = None) -> Image.Image:
    """Decode one image: first frame, EXIF orientation applied, transparency laid on white, RGB.

    Args:
        data: The encoded image.
        side: What the shorter side must have at least, pixels. A larger JPEG is decoded at 1/2, 1/4 or 1/8 of its
            size as long as it stays above, in the frequency domain, at a fraction of the cost. None: every pixel.

    Raises:
        BadImageError: The bytes cannot be decoded, or hold more pixels than is safe; the text is the row's error.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_OPENED) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImageError(
                    f"decompression bomb: {width}×{height} = {width * height:,} pixels > {MAX_PIXELS:,}"
                )
            turn = _TURNS.get(orientation_of(image)) if image.format != "TIFF" else None  # Pillow turns those itself
            if side is not None and image.format in ("JPEG", "MPO"):
                image.draft(None, (side, side))
            flat = _rgb(image)
            return flat.transpose(turn) if turn is not None else flat
    except BadImageError:
        raise
    except Exception as error:  # decoders of hostile bytes fail in every way there is: each is this row's error
        raise BadImageError(f"undecodable: {' '.join(f'{type(error).__name__} {error}'.split())[:200]}") from error


def portable(data: bytes, longest: int) -> bytes:
    """The image as bytes that any program shows right: as they are, if they are that, else encoded anew.

    Few programs turn an image as its EXIF says, know what to do with CMYK, or lay transparency on white; here that is
    done as `decode` does it.

    Args:
        data: The encoded image.
        longest: What the longer side may have at most, pixels; a larger image is scaled down.

    Returns:
        JPEG, PNG or WEBP.

    Raises:
        BadImageError: As `decode`; but pixels that need not be decoded are not looked at.
    """
    if _shows_right(data, longest):
        return data
    image = decode(data, longest)
    image.thumbnail((longest, longest))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()


def _shows_right(data: bytes, longest: int) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=_OPENED) as image:
            plain = image.format in ("JPEG", "PNG", "WEBP") and image.mode in ("RGB", "L")
            fits = max(image.size) <= longest
            alone = getattr(image, "n_frames", 1) == 1 and "transparency" not in image.info
            return plain and fits and alone and orientation_of(image) not in _TURNS
    except Exception:  # `decode` says what is wrong with it
        return False


def _rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I"):  # 16 bits a sample; convert() would clip them to white
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")
