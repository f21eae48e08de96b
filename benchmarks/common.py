"""What the benchmarks share: the machine line, the table of results, and photographs encoded as JPEGs."""

from __future__ import annotations

import io
import json
import os
import platform
import random
import resource
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

SCRATCH = Path("build/bench")
PHOTOGRAPHS = Path("demo/pool/photographs")

_CPU_INFO = Path("/proc/cpuinfo")
_FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")  # how fast models are depends on the first that a CPU has
_ORIENTATION = 0x0112
_SIZES = range(20_000, 60_001)  # bytes of a JPEG of a web pool
_QUALITIES = (85, 75, 92, 65, 96, 50, 35)  # in this order, until the size is right


def machine(libraries: Sequence[str] = ("ray", "polars", "pyarrow", "pillow")) -> str:
    """Cores and their matrix instructions, memory, load, versions: what a number depends on besides the code."""
    flags = _CPU_INFO.read_text().split() if _CPU_INFO.is_file() else []
    multiplies = next((f" with {flag}" for flag in _FLAGS if flag in flags), "")
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return (
        f"{platform.machine()}{multiplies}, {os.cpu_count()} cores, {ram:.0f} GiB RAM, "
        f"load {os.getloadavg()[0]:.1f} at the start; "
        f"Python {platform.python_version()}, {versions}"
    )


def peak_gib() -> float:
    """The most memory that this process has held at once, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def verdict(value: float, target: float) -> str:
    """Whether a target of the form `value ≤ target` is met."""
    return f"≤ {target:g}: {'met' if value <= target else 'MISSED'}"


def reached(value: float, target: float) -> str:
    """Whether a target of the form `value ≥ target` is met."""
    return f"≥ {target:g}: {'met' if value >= target else 'MISSED'}"


def spread(values: Sequence[float]) -> str:
    """`1.23 (1.20 to 1.31)`: the median, the smallest and the largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def report(results: dict[str, Any], columns: Sequence[str], rows: Iterable[Sequence[object]], as_json: bool) -> None:
    """Print the results, as a table under the machine line or, with `--json`, as they are."""
    if as_json:
        print(json.dumps(results, indent=2))
        return
    print(results["machine"])
    lines = [tuple(columns), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def jpegs(count: int, say: Callable[[str], None], seed: int = 0, about: int | None = None) -> list[bytes]:
    """Distinct JPEGs of about 640×480 pixels and 20 to 60 kB, or `about` bytes, one in ten turned by EXIF orientation.

    They are crops of the demo's photographs (`make demo` makes them), else of generated clouds.
    """
    from PIL import Image

    rng = random.Random(seed)
    files = sorted(p for p in PHOTOGRAPHS.glob("*") if p.suffix in (".jpg", ".png"))
    if not files:
        say(f"no {PHOTOGRAPHS}: generated pictures instead of photographs")
    encoded = []
    for number in range(count):
        if files:
            with Image.open(files[number % len(files)]) as photo:
                picture = photo.convert("RGB")
        else:
            picture = _clouds(rng)
        encoded.append(_encode(_crop(picture, rng), rng, about))
    return encoded


def _clouds(rng: random.Random) -> Any:
    from PIL import Image

    coarse = Image.frombytes("RGB", (40, 40), rng.randbytes(40 * 40 * 3)).resize((800, 800), Image.Resampling.BICUBIC)
    fine = Image.frombytes("RGB", (400, 400), rng.randbytes(400 * 400 * 3)).resize((800, 800))
    return Image.blend(coarse, fine, 0.15)


def _crop(picture: Any, rng: random.Random) -> Any:
    """A crop of a random shape, scaled to about the area of 640×480."""
    ratio = rng.uniform(0.5, 2.2)
    width = int(min(picture.width, picture.height * ratio))
    height = int(width / ratio)
    left, top = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    area = rng.uniform(0.6, 1.5) * 640 * 480
    size = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
    return picture.resize(size, box=(left, top, left + width, top + height))


def _encode(picture: Any, rng: random.Random, about: int | None) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[_ORIENTATION] = rng.choice((6, 8)) if rng.random() < 0.1 else 1
    tried = []
    for quality in _QUALITIES:
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality, exif=exif)
        tried.append(out.getvalue())
        if about is None and len(tried[-1]) in _SIZES:
            break
    if about is not None:
        return min(tried, key=lambda data: abs(len(data) - about))
    return min(tried, key=lambda data: max(_SIZES.start - len(data), len(data) - _SIZES.stop, 0))
