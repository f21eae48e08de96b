"""One pool of JPEGs with alt texts in the forms that the contenders read best: a webdataset tar, files, and a list."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from common import PHOTOGRAPHS, jpegs

MOST = 2.0  # of the longer side by the shorter one: what all keep
DISTINCT = 500

WORDS = """
a the of in on with and near under old new red blue green white black wooden metal small large two three photo picture
view close street house dog cat bird horse flower tree river car bicycle boat bridge mountain kitchen table chair cup
plate bread apple orange window door woman man child crowd market train station clouds snow sunset
""".split()


@dataclass(frozen=True)
class Pool:
    """So many rows: `0000007.jpg` and its alt text.

    Attributes:
        folder: Holds all of it.
        rows: How many.
    """

    folder: Path
    rows: int

    @property
    def tar(self) -> Path:
        """Each image, then its alt text as `.txt`."""
        return self.folder / "pool.tar"

    @property
    def files(self) -> Path:
        """A folder of the same images."""
        return self.folder / "files"

    @property
    def list(self) -> Path:
        """Data-Juicer's JSONL: `images`, a list of one absolute path, and `text`."""
        return self.folder / "list.jsonl"


def make(folder: Path, rows: int) -> Pool:
    """Make a pool, unless it is there; the folder appears whole or not at all. It has up to 500 different images."""
    pool = Pool(folder.absolute(), rows)
    if pool.folder.is_dir():
        return pool
    print(f"making {folder}", file=sys.stderr)
    if not PHOTOGRAPHS.is_dir():
        subprocess.run([sys.executable, "recipes/demo_pool.py", str(PHOTOGRAPHS.parent)], check=True)
    aside = Pool(pool.folder.with_name(f"{pool.folder.name}.aside"), rows)
    shutil.rmtree(aside.folder, ignore_errors=True)
    aside.files.mkdir(parents=True)
    rng = random.Random(1)
    with tarfile.open(aside.tar, "w") as archive, aside.list.open("w") as lines:
        encoded = jpegs(min(rows, DISTINCT), lambda text: print(text, file=sys.stderr))
        for number in range(rows):
            name, data = f"{number:07d}", encoded[number % len(encoded)]
            text = " ".join(rng.choices(WORDS, k=rng.randint(4, 16)))
            (aside.files / f"{name}.jpg").write_bytes(data)
            _add(archive, f"{name}.jpg", data)
            _add(archive, f"{name}.txt", text.encode())
            line = {"images": [str(pool.files / f"{name}.jpg")], "text": f"<__dj__image> {text}"}
            lines.write(json.dumps(line) + "\n")
    aside.folder.rename(pool.folder)
    return pool


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
