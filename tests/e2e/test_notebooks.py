"""The notebooks run from end to end, on a small run of the demo's photographs; and are stored as they ran."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import nbformat
import pytest
import yaml

from notebooks.execute import FOLDER, execute
from recipes.demo_pool import copy, package_folder
from tests.conftest import CommandLine
from tests.runs import jobs_here, run
from tests.test_architecture import ROOMS

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

PHOTOGRAPHS = "astronaut.png coffee.png chelsea.png rocket.jpg horse.png logo.png moon.png page.png".split()
"""Of scikit-image; `page.png` is too narrow."""

STAGES = "aspect_ratio quality conse describe".split()
"""Of the demo's, those that the notebooks show: two that drop images, and two that make captions."""

LARGEST = 500_000
"""Bytes of a notebook: it should open at once on a web page."""


@pytest.fixture(scope="module")
def demo(engine: str, tmp_path_factory: pytest.TempPathFactory, vl3syn: CommandLine) -> Path:
    """What `make demo` makes, with eight images and four stages: `pool`, and `run` with its shards."""
    folder = tmp_path_factory.mktemp("demo")
    for name in PHOTOGRAPHS:
        copy(package_folder("skimage") / "data" / name, folder / "pool/photographs" / name)
    (folder / "pool/photographs/empty.jpg").write_bytes(b"")
    recipe = yaml.safe_load((FOLDER.parent / "recipes/demo.yaml").read_text())
    recipe["pool"] = {"images": str(folder / "pool")}
    recipe["stages"] = [entry for entry in recipe["stages"] if entry["stage"] in STAGES]
    next(entry for entry in recipe["stages"] if entry["stage"] == "quality")["keep"] = {
        "top": 0.7
    }  # drops some of seven
    with jobs_here():
        run(recipe, folder / "run")
        published = vl3syn("publish", "--run", folder / "run")
    assert published.returncode == 0, published.stderr
    return folder


@pytest.mark.docs
@pytest.mark.timeout(900)
@EACH
def test_every_cell_of_a_notebook_runs(path: Path, demo: Path) -> None:
    with patch.dict(os.environ, {"VL3SYN_DEMO": str(demo)}):
        notebook = execute(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 8
    assert all(cell.execution_count for cell in code)
    assert printed_errors(notebook) == []


@EACH
def test_stored_outputs_are_of_one_execution_in_order(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"
    assert printed_errors(notebook) == []


@EACH
def test_stored_notebook_is_small_and_names_no_machine_path(path: Path) -> None:
    text = path.read_text()
    assert len(text) <= LARGEST
    assert re.findall(r"(?<![\w.:/-])/(?:home|root|tmp|usr|opt|work|var|Users|mnt)/[^\s\"'\\]*", text) == []


@pytest.mark.docs
@EACH
def test_notebook_imports_documented_public_names_only(path: Path) -> None:
    names = list(imported(nbformat.read(path, as_version=4)))
    assert len(names) >= 2
    for module, name in names:
        thing = getattr(importlib.import_module(module), name)
        assert not name.startswith("_"), name
        assert inspect.getdoc(thing), f"{module}.{name} has no docstring"


def imported(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str]]:
    """Module and name of what a notebook imports from the packages of this project."""
    for cell in notebook.cells:
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
                yield from ((node.module, alias.name) for alias in node.names)


def printed_errors(notebook: nbformat.NotebookNode) -> list[str]:
    """What cells wrote to stderr: warnings, which a reader would stumble over."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.get("name") == "stderr"]
