"""The pieces of work, and who does them. The first contender of each is the one that the others are compared with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers import clean_vision, data_juicer, image_to_dataset, loops, ours, pool, weights
from peers.contender import Contender
from peers.environments import environment
from peers.pool import Pool

SERVER = Path(__file__).parent / "programs" / "server.py"
SCORES_DIFFER = 0.02
"""Of 500 images one cosine of Data-Juicer's, whose pictures are prepared by transformers, is 0.0114 from ours; ours in
bfloat16 is 0.001 from ours in float32. From image to image these scores vary by 0.012, these cosines by 0.026 (sd)."""


@dataclass(frozen=True)
class Place:
    """Where things are made, once.

    Attributes:
        build: Pools, weights and the folders of the runs.
        environments: A virtual environment for each peer.
        closing: What is to end after the work.
    """

    build: Path
    environments: Path
    closing: ExitStack

    def pool(self, rows: int) -> Pool:
        return pool.make(self.build / f"pool-{rows}", rows)

    def weights(self) -> weights.Weights:
        return weights.weights(self.build.absolute() / "weights")


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        name: As the table has it.
        rows: Images, unless others are asked for.
        contenders: Makes what they need; called with the number of images.
        tolerance: By how much their results may differ.
    """

    name: str
    rows: int
    contenders: Callable[[Place, int], Sequence[Contender]]
    tolerance: float


def _ratios(place: Place, rows: int) -> Sequence[Contender]:
    images = place.pool(rows)
    juicer = environment(place.environments, data_juicer.PEER)
    return [ours.ratios(images), data_juicer.ratios(juicer, images), loops.ratios(images)]


def _scores(place: Place, rows: int) -> Sequence[Contender]:
    images, models = place.pool(rows), place.weights()
    juicer = environment(place.environments, data_juicer.PEER)
    by_hand = [loops.scores(images, models, precision) for precision in ("float32", "bfloat16")]
    return [ours.scores(images, models), data_juicer.scores(juicer, images, models), *by_hand]


def _copies(place: Place, rows: int) -> Sequence[Contender]:
    images = place.pool(rows)
    vision = environment(place.environments, clean_vision.PEER)
    return [ours.copies(images), clean_vision.copies(vision, images), loops.copies(images)]


def _downloads(place: Place, rows: int) -> Sequence[Contender]:
    files = place.pool(rows).files
    server = place.closing.enter_context(_served(files))
    urls = [f"{server}/{file.name}" for file in sorted(files.iterdir())]
    downloader = environment(place.environments, image_to_dataset.PEER)
    return [ours.downloads(downloader, urls), image_to_dataset.downloads(downloader, urls), loops.downloads(urls)]


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a server of these files, in a process of its own whose CPU seconds are nobody's."""
    server = subprocess.Popen([sys.executable, str(SERVER), str(folder)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


WORKS = {
    "ratios": Work("aspect ratio", 5_000, _ratios, 0.001),
    "scores": Work("aspect ratio, aesthetic and alt-text similarity, ViT-B/32", 500, _scores, SCORES_DIFFER),
    "copies": Work("equal files and perceptual hashes", 5_000, _copies, 0),
    "downloads": Work("download from this machine", 1_000, _downloads, 0),
}
