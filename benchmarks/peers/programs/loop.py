"""What one would write by hand: a loop over a tar, or over a list of URLs.

Nothing is stored before the end, and no error is caught.

python loop.py ratios TAR OUT
python loop.py scores TAR OUT MODEL HEAD float32|bfloat16
python loop.py copies TAR OUT
python loop.py downloads LIST OUT
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

MOST, BATCH, THREADS = 2.0, 64, 64


def members(tar: str, ending: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(tar) as archive:
        for member in archive:
            if member.name.endswith(ending):
                yield member.name, archive.extractfile(member).read()  # type: ignore[union-attr]  # a file


def upright(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def ratio(image: Image.Image) -> float:
    turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    width, height = reversed(image.size) if turned else image.size
    return max(width, height) / min(width, height)


def ratios(tar: str) -> list[dict[str, Any]]:
    rows = ({"key": name, "ratio": ratio(Image.open(io.BytesIO(data)))} for name, data in members(tar, ".jpg"))
    return [row for row in rows if row["ratio"] <= MOST]


def scores(tar: str, folder: str, head: str, precision: str) -> list[dict[str, Any]]:
    import open_clip
    import torch
    from safetensors.torch import load_file

    dtype = getattr(torch, precision)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", precision="fp32")
    model = model.to(dtype=dtype).eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    layers = load_file(head)
    texts = {name.replace(".txt", ".jpg"): text.decode() for name, text in members(tar, ".txt")}
    images = ((name, upright(data)) for name, data in members(tar, ".jpg"))
    kept = ((name, transform(image), texts[name]) for name, image in images if ratio(image) <= MOST)
    rows = []
    with torch.inference_mode():
        while batch := [row for _, row in zip(range(BATCH), kept, strict=False)]:
            names, pixels, captions = zip(*batch, strict=True)
            seen = model.encode_image(torch.stack(pixels).to(dtype), normalize=True).float()
            read = model.encode_text(tokenize(list(captions)), normalize=True).float()
            rating = seen
            for number in (0, 2, 4, 6, 7):
                rating = rating @ layers[f"layers.{number}.weight"].T + layers[f"layers.{number}.bias"]
            found = zip(names, rating[:, 0].tolist(), (seen * read).sum(1).tolist(), strict=True)
            rows += [{"key": name, "aesthetic": score, "similarity": cosine} for name, score, cosine in found]
    return rows


def copies(tar: str) -> list[dict[str, Any]]:
    import imagehash

    seen: set[bytes] = set()
    rows = []
    for name, data in members(tar, ".jpg"):
        phash = str(imagehash.phash(upright(data)))
        if (digest := hashlib.sha256(data).digest()) not in seen:
            rows.append({"key": name, "phash": phash})
        seen.add(digest)
    return rows


def downloads(urls: str) -> list[dict[str, Any]]:
    def get(url: str) -> tuple[str, bytes]:
        with urlopen(url, timeout=10) as answer:
            return url.rpartition("/")[2], answer.read()

    rows = []
    with ThreadPoolExecutor(THREADS) as threads, tarfile.open("images.tar", "w") as archive:
        for name, data in threads.map(get, Path(urls).read_text().split()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            rows.append({"key": name, "sha256": hashlib.sha256(data).hexdigest()})
    return rows


if __name__ == "__main__":
    what, tar, out, *settings = sys.argv[1:]
    pq.write_table(pa.Table.from_pylist(globals()[what](tar, *settings)), Path(out))
