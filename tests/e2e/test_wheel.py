"""What is installed from a wheel works without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pydantic
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "manifests", "filters", "clustering", "captioners", "model", "pipeline")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that no `build/` is left in the repository."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source)
    (built,) = out.glob("vl3syn-*.whl")
    return built


def test_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Modules, and what they read: prompts, templates, `py.typed`."""
    files = {str(file.relative_to(ROOT)) for name in PACKAGES for file in (ROOT / name).rglob("*") if file.is_file()}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {"captioners/prompts/short.txt", "pipeline/py.typed"} <= held
    assert {file for file in files if "__pycache__" not in file} - held == set()


def test_wheel_has_nothing_beside_the_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == set(PACKAGES)


@pytest.mark.thorough
def test_installed_wheel_runs_a_filter(wheel: Path, tmp_path: Path, photographs: list[Path]) -> None:
    """Its dependencies are those of this environment, by a .pth file; the repository is not on the path."""
    python = environment(tmp_path)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{Path(pydantic.__file__).parents[1]}\n")
    pip(sys.executable, "--python", python, "install", "--no-deps", "--no-index", wheel)
    check_filter(python, tmp_path, photographs)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wheel_installs_with_its_dependencies(wheel: Path, tmp_path: Path, photographs: list[Path]) -> None:
    """From the package index, at the versions of constraints.txt."""
    python = environment(tmp_path)
    pip(sys.executable, "--python", python, "install", "-c", ROOT / "constraints.txt", wheel)
    check_filter(python, tmp_path, photographs)


def environment(folder: Path) -> Path:
    """The Python of a new virtual environment."""
    venv.create(folder / "env", symlinks=True)
    return folder / "env/bin/python"


def pip(python: str | Path, *arguments: object) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_filter(python: Path, folder: Path, photographs: list[Path]) -> None:
    (folder / "photos").mkdir()
    for photograph in photographs[:3]:
        shutil.copy(photograph, folder / "photos")
    assert call(python, folder, "-c", "import core; print(core.__file__)").startswith(str(folder / "env"))
    assert "Usage: vl3syn" in call(folder / "env/bin/vl3syn", folder, "--help")
    call(folder / "env/bin/vl3syn", folder, "index", "--images", "photos", "--run", "run")
    filtered = call(folder / "env/bin/vl3syn", folder, *"filter aspect-ratio --run run --max 9".split())
    assert "3 rows, 3 survive" in filtered
    prompts = "from captioners.prompts import read_prompts; print(len(read_prompts('short')))"
    assert int(call(python, folder, "-c", prompts)) > 1


def call(program: Path, folder: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([program, *arguments], cwd=folder, env=clean, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout
