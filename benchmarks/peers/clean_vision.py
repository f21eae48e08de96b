"""CleanVision on a folder of files, with a process for each core: programs/clean_vision.py, in its environment."""

from __future__ import annotations

import json
from pathlib import Path

from peers.contender import Contender, Found
from peers.environments import version
from peers.pool import Pool

PEER = "cleanvision"
PROGRAM = Path(__file__).parent / "programs" / "clean_vision.py"


def copies(programs: Path, pool: Pool) -> Contender:
    def command(folder: Path) -> list[str]:
        return [str(programs / "python"), str(PROGRAM), str(pool.files), "kept.json"]

    def found(folder: Path) -> Found:
        return {name: () for name in json.loads((folder / "kept.json").read_text())}

    return Contender(f"CleanVision {version(PEER, PEER)}", command, found)
