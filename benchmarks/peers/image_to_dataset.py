"""img2dataset: URLs to webdataset tars with the bytes as they come, a process and 32 threads for each core."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from peers.contender import DIGITS, Contender, Found
from peers.environments import version

PEER = "img2dataset"


def downloads(programs: Path, urls: Sequence[str]) -> Contender:
    cores = os.cpu_count() or 1
    options = {
        "url_list": "urls.txt",
        "input_format": "txt",
        "output_folder": "shards",
        "output_format": "webdataset",
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "processes_count": cores,
        "thread_count": 32 * cores,
        "number_sample_per_shard": -(-len(urls) // cores),  # with fewer shards than processes some would idle
    }

    def command(folder: Path) -> list[str]:
        (folder / "urls.txt").write_text("\n".join(urls))
        return [str(programs / "img2dataset"), *(f"--{name}={value}" for name, value in options.items())]

    def found(folder: Path) -> Found:
        import polars as pl

        rows = pl.read_parquet(folder / "shards" / "*.parquet").filter(pl.col("status") == "success")
        named = rows.select(pl.col("url").str.split("/").list.last(), pl.col("sha256"))
        return {name: (int(digest[:DIGITS], 16),) for name, digest in named.iter_rows()}

    return Contender(f"img2dataset {version(PEER, PEER)}", command, found)
