"""How far the pixels of photographs are from Pillow's, which the reference resizes with: a Markdown table.

Both resize with antialiased bicubic interpolation. Numbers are grey levels, 0 to 255, of each channel of each pixel.
The photographs lie in the wheels of scikit-image and scikit-learn (`pip install '.[demo]'`).

    .venv/bin/python benchmarks/resize.py
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from turns import markdown

WHEELS = {"skimage": "data", "sklearn": "datasets/images"}
DRAWN = ("logo", "phantom", "horse", "multipage", "chessboard", "color", "no_time")
SCALES = (3, 1.5, 0.9, 0.7, 0.5, 0.25, 0.1)


def main() -> None:
    pictures = photographs()
    rows = [row(scale, pictures) for scale in SCALES]
    print(f"{len(pictures)} photographs\n")
    print(markdown(("scale", "equal", "off by 1", "by more", "most", "on average"), rows))


def photographs() -> list[Image.Image]:
    files: list[Path] = []
    for package, inside in WHEELS.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        files += sorted(p for p in (Path(spec.origin).parent / inside).iterdir() if p.suffix in (".png", ".jpg"))
    return [Image.open(path).convert("RGB") for path in files if not path.name.startswith(DRAWN)]


def row(scale: float, pictures: list[Image.Image]) -> list[str]:
    """One line of the table: all channels of all pixels of all photographs at one scale, to sides of 14 pixels."""
    differences = np.concatenate([difference(picture, scale) for picture in pictures])
    counts = [float((differences == 0).mean()), float((differences == 1).mean()), float((differences > 1).mean())]
    return [
        f"{scale:g}",
        *(f"{100 * count:.2f} %" for count in counts),
        str(differences.max()),
        f"{differences.mean():.3f}",
    ]


def difference(picture: Image.Image, scale: float) -> np.ndarray:
    from model.images import resize

    height, width = (max(round(side * scale / 14), 1) * 14 for side in (picture.height, picture.width))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    ours = resize(pixels, (height, width))[0].permute(1, 2, 0).numpy().astype(int)
    theirs = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.abs(ours - theirs).ravel()


if __name__ == "__main__":
    main()
