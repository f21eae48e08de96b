"""A loop of few lines, in our environment: programs/loop.py, in one process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from peers.contender import DIGITS, Contender, Found
from peers.pool import Pool
from peers.weights import Weights

PROGRAM = Path(__file__).parent / "programs" / "loop.py"
OUT = "found.parquet"


def ratios(pool: Pool) -> Contender:
    return _contender("a loop", "ratios", pool, "ratio")


def scores(pool: Pool, weights: Weights, precision: str) -> Contender:
    settings = (str(weights.open_clip), str(weights.head), precision)
    return _contender(f"a loop, {precision}", "scores", pool, "aesthetic", "similarity", settings=settings)


def copies(pool: Pool) -> Contender:
    return _contender("a loop", "copies", pool)


def downloads(urls: Sequence[str]) -> Contender:
    def command(folder: Path) -> list[str]:
        (folder / "urls.txt").write_text("\n".join(urls))
        return [sys.executable, str(PROGRAM), "downloads", "urls.txt", OUT]

    def found(folder: Path) -> Found:
        import polars as pl

        rows = pl.read_parquet(folder / OUT).select("key", "sha256").iter_rows()
        return {name: (int(digest[:DIGITS], 16),) for name, digest in rows}

    return Contender("a loop, 64 threads", command, found)


def _contender(name: str, what: str, pool: Pool, *columns: str, settings: tuple[str, ...] = ()) -> Contender:
    def command(folder: Path) -> list[str]:
        return [sys.executable, str(PROGRAM), what, str(pool.tar), OUT, *settings]

    def found(folder: Path) -> Found:
        import polars as pl

        return {
            name: tuple(values) for name, *values in pl.read_parquet(folder / OUT).select("key", *columns).iter_rows()
        }

    return Contender(name, command, found)
