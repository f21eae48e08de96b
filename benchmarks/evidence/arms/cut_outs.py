"""Cut-outs with names, of the Debian package `tuxpaint-stamps-default`, and photographs as grounds.

The package is fetched into a cache folder and is no part of this project. Its pictures are free: its `copyright` file
names the licence of each.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

PACKAGE = "tuxpaint-stamps-default"
STAMPS = Path("usr/share/tuxpaint/stamps")
LONGEST = 56  # pixels, the longer side of a cut-out in a scene
GROUND = 224  # pixels, both sides of a photograph that scenes are cut out of

NAMES = {
    "frog": "animals/amphibians/frog",
    "owl": "animals/birds/owl",
    "penguin": "animals/birds/penguin",
    "pink flamingo": "animals/birds/pink_flamingo",
    "clownfish": "animals/fish/clownfish",
    "butterfly": "animals/insects/cartoon/butterfly",
    "cow": "animals/mammals/bovines/cow",
    "tiger": "animals/mammals/cats/tiger",
    "elephant": "animals/mammals/elephant",
    "zebra": "animals/mammals/equines/zebra",
    "banana": "food/fruit/banana",
    "strawberry": "food/fruit/strawberry",
    "orange": "food/fruit/orange",
    "carrot": "food/vegetables/carrot",
    "mushroom": "food/vegetables/mushroom",
    "camera": "hobbies/camera_35mm",
    "teapot": "household/dishes/teapot",
    "soccer ball": "sports/soccer",
    "fire truck": "vehicles/emergency/firetruck",
    "hot air balloon": "vehicles/flight/balloon360",
}
"""The cut-outs of the scenes, and the names that the package gives them."""


@dataclass(frozen=True)
class Materials:
    """What scenes are made of.

    Attributes:
        objects: RGBA, at most `LONGEST` pixels wide and high, by name.
        photographs: RGB, `GROUND` pixels wide and high.
    """

    objects: dict[str, Image.Image]
    photographs: list[Image.Image]

    def first(self, count: int) -> Materials:
        """Return them with every so-manyeth object, `count` in all, so that all kinds remain."""
        chosen = list(self.objects)[:: len(self.objects) // count][:count]
        return Materials({name: self.objects[name] for name in chosen}, self.photographs)


def fetch(cache: Path) -> Path:
    """Return the folder of the unpacked package; fetch it if it is not there.

    It exits with one line if the package cannot be had.
    """
    folder = cache / PACKAGE
    if (folder / STAMPS).is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    aside = cache / "unpacked"
    shutil.rmtree(aside, ignore_errors=True)  # left by an end while it was unpacked
    try:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=cache, check=True, capture_output=True, text=True)
        package = next(cache.glob(f"{PACKAGE}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), str(aside)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        sys.exit(
            f"no cut-outs: the Debian package {PACKAGE} could not be fetched ({''.join(reason)}). Run "
            f"`apt-get update`, or unpack the package yourself: dpkg-deb -x {PACKAGE}_*.deb {folder}"
        )
    aside.rename(folder)
    package.unlink()
    return folder


def load(package: Path, photographs: Path) -> Materials:
    """Load the cut-outs of an unpacked package, and all photographs of a folder.

    It exits with one line if a file is missing.
    """
    files = sorted(p for p in photographs.glob("*") if p.suffix in (".jpg", ".png"))
    if not files:
        sys.exit(f"{photographs} has no photographs: python recipes/demo_pool.py {photographs.parent}")
    objects = {}
    for name, place in NAMES.items():
        file = package / STAMPS / f"{place}.png"
        if not file.is_file():
            sys.exit(f"{file} is missing: {PACKAGE} has changed; delete {package}, or take version 2022.06.04")
        objects[name] = cut_out(Image.open(file))
    return Materials(objects, [ground(Image.open(file)) for file in files])


def cut_out(image: Image.Image) -> Image.Image:
    """Return a picture without its transparent margin, at most `LONGEST` pixels wide and high; RGBA."""
    image = image.convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    return ImageOps.contain(image, (LONGEST, LONGEST))


def ground(image: Image.Image) -> Image.Image:
    """Return a photograph as a ground for scenes: RGB, `GROUND` pixels wide and high."""
    return ImageOps.fit(image.convert("RGB"), (GROUND, GROUND))
