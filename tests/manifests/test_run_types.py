"""Types of the API, as the type checker of a user sees them: from outside of the packages, which are installed."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

import manifests

ROOT = Path(manifests.__file__).parents[1]

USER = """
from manifests import Account, Funnel, Run, open_run
import polars as pl

run: Run = open_run("run")
funnel: Funnel = run.funnel()
table: pl.DataFrame = run.sweep({"quality.min": 0.5}, aspect_ratio={"max": [2, 2.5]})
accounts: list[Account] = run.explain(7)
manifest: pl.LazyFrame = run.manifest()
run.sweep(quality=0.5)
funnel.survivors + "images"
run.expain("a.jpg")
"""


@pytest.mark.slow
def test_types_are_seen_from_outside_of_the_packages(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    python = installed(tmp_path / "venv", ("core", "manifests"))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--python-executable={python}", "user.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    assert [line.split(":")[1] for line in errors] == ["10", "11", "12"], checked.stdout
    assert '"Run" has no attribute "expain"; maybe "explain"?' in errors[-1]


def installed(folder: Path, packages: tuple[str, ...]) -> Path:
    """Return the Python of a new environment that has these packages, and this environment's others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages_folder,) = folder.glob("lib/python*/site-packages")
    for name in packages:
        shutil.copytree(ROOT / name, packages_folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    libraries = [path for path in site.getsitepackages() + sys.path if path.endswith("site-packages")]
    (packages_folder / "libraries.pth").write_text("\n".join(dict.fromkeys(libraries)))
    return folder / "bin/python"
