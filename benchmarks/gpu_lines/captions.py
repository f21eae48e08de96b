"""lmdeploy, where it is installed: our calls against its signatures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gpu_lines.proof import Figure, Place

SCRIPT = Path(__file__).resolve().parents[2] / "tests/captioners/engines/lmdeploy_signatures.py"


def lmdeploy(place: Place) -> Iterator[Figure]:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    found = json.loads(done.stdout.splitlines()[-1])
    yield Figure("lmdeploy", found["lmdeploy"])
    yield Figure("calls and answers that fit", found["checked"], least=6)
