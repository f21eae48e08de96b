"""A virtual environment for each peer, made once, with the pinned versions of requirements/PEER.txt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"


def environment(folder: Path, peer: str) -> Path:
    """Return where the programs of a peer are; make its environment first, unless it has these requirements already."""
    requirements = REQUIREMENTS / f"{peer}.txt"
    target = folder.absolute() / peer
    done = target / ".done"
    if not done.is_file() or done.read_text() != requirements.read_text():
        print(f"installing {peer} into {target}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
        pip = (str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--requirement", str(requirements)], check=True)
        done.write_text(requirements.read_text())
    return target / "bin"


def version(peer: str, package: str) -> str:
    """Return the version of a package that a peer's requirements pin."""
    lines = (REQUIREMENTS / f"{peer}.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
