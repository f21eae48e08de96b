"""What holds for every file of the model: it is short, and it can be imported where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import model

ROOT = Path(model.__file__).parent
MODULES = sorted(".".join(("model", *path.relative_to(ROOT).with_suffix("").parts)) for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("folder", [ROOT, ROOT.parent / "tests/model"], ids=["model", "tests"])
def test_no_file_is_above_300_lines(folder: Path) -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in folder.rglob("*.py")}
    assert lines
    assert {name: count for name, count in lines.items() if count > 300} == {}


@pytest.mark.thorough
def test_importing_any_module_does_not_start_cuda() -> None:
    """In a process that sees no device, and finds no package that there is for CUDA only."""
    program = (
        "import importlib, sys, torch\n"
        "sys.modules |= dict.fromkeys(('triton', 'flash_attn', 'flash_attn_interface', 'deepspeed', 'bitsandbytes'))\n"
        f"for name in {MODULES!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": "", "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
