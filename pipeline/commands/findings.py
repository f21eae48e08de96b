"""Check what this machine has installed for the pipeline, and what the recipes need that is missing."""

from __future__ import annotations

import glob
import importlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from captioners.engines.registry import ENGINES
from core.errors import UserError
from core.precision import cpu_dtype
from core.yaml_text import load_yaml
from pipeline.execution.placement import check_placement
from pipeline.recipe import load_recipe
from pipeline.stages.download.child_process import find_python
from pipeline.stages.download.fetching.child import TESTED

_IMG2DATASET = "from importlib.metadata import version; print(version('img2dataset'))"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: The part that was checked.
        state: `ok`, `missing` (something optional is not available) or `broken` (must be fixed).
        found: The result, and what to do if it is not enough.
    """

    what: str
    state: str
    found: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(recipes: Sequence[str] | None) -> list[Finding]:
    """Check Python, engines, the GPU, faiss, img2dataset, video decoding and the recipes (default `recipes/*.yaml`)."""
    paths = recipes if recipes else sorted(glob.glob("recipes/*.yaml"))
    findings = [_training(path) if _is_training(path) else _recipe(path) for path in paths]
    findings = findings or [Finding("recipes", "missing", "none given, none in recipes/ here")]
    return [_python(), _ray(), _torch(), _faiss(), *_engines(), _download(), _video(), *findings]


def _python() -> Finding:
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding("python", "ok" if fits else "broken", version if fits else f"{version}; 3.11 to 3.13 are supported")


def _ray() -> Finding:
    versions = [f"{name} {metadata.version(name)}" for name in ("ray", "polars", "pyarrow", "pillow")]
    return Finding("engine", "ok", ", ".join(versions))


def _torch() -> Finding:
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError):  # OSError: its shared libraries do not load
        return Finding("torch", "missing", "not installed; the model stages need it: pip install 'vl3syn[models]'")
    if not torch.cuda.is_available():
        return Finding(
            "torch", "ok", f"{torch.__version__}, no CUDA device: models run on the CPU, by default in {cpu_dtype()}"
        )
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda}: {', '.join(names)}")


def _faiss() -> Finding:
    packages = sorted(
        {d.name.lower() for d in metadata.distributions() if d.name and d.name.lower().startswith("faiss-")}
    )
    if not packages:
        return Finding("faiss", "missing", "none; install the extra `cpu` or `gpu`, not both")
    if len(packages) > 1:
        return Finding(
            "faiss", "broken", f"{' and '.join(packages)} overwrite each other: pip uninstall all, install one"
        )
    try:
        faiss = importlib.import_module("faiss")
    except (ImportError, RuntimeError) as error:  # faiss-gpu without its CUDA runtime raises RuntimeError
        return Finding("faiss", "broken", f"{packages[0]}: {' '.join(str(error).split())[:150]}")
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    return Finding("faiss", "ok", f"{packages[0]} {metadata.version(packages[0])}, {gpus} GPUs")


def _engines() -> list[Finding]:
    findings = []
    for kind, engine in ENGINES.items():
        try:
            if installed := engine.installed():
                findings.append(Finding(kind, "ok", installed))
        except UserError as error:
            findings.append(Finding(kind, "missing", str(error).removeprefix(f"{kind}: ")))
    return findings


def _download() -> Finding:
    python = find_python(None)
    try:
        done = subprocess.run([python, "-E", "-c", _IMG2DATASET], capture_output=True, text=True)
    except OSError:
        return Finding("download", "missing", "no img2dataset; lists of URLs need it: make setup-download")
    found = f"img2dataset {done.stdout.strip() or 'is missing'} in {python}"
    if done.stdout.strip() != TESTED:
        return Finding("download", "missing", f"{found}, and {TESTED} is needed: make setup-download")
    return Finding("download", "ok", found)


def _video() -> Finding:
    try:
        return Finding("video", "ok", f"PyAV {metadata.version('av')}, FFmpeg inside")
    except metadata.PackageNotFoundError:
        return Finding("video", "missing", "PyAV (`av`) is not installed; only video training data needs it")


def _is_training(path: str) -> bool:
    """Return whether a file is a training recipe; False if it cannot be read."""
    try:
        content = load_yaml(Path(path).read_bytes(), path)
    except (OSError, UserError):  # `load_recipe` reports it
        return False
    return isinstance(content, dict) and "sources" in content


def _training(path: str) -> Finding:
    what = f"recipe {path}"
    try:
        from model.training.held_out import open_held_out
        from model.training.recipe import load_recipe as load_training
        from model.training.run import open_sources
    except (ImportError, OSError):
        return Finding(what, "missing", "a training needs torch: pip install 'vl3syn[models]'")
    try:
        recipe = load_training(path)
    except UserError as error:
        return Finding(what, "broken", str(error))
    try:
        samples = {name: source.rows for name, source in open_sources(recipe).items()}
        open_held_out(recipe)
    except (UserError, OSError) as error:
        return Finding(what, "missing", str(error))
    return Finding(what, "ok", "ready, " + ", ".join(f"{name} {count:,}" for name, count in samples.items()))


def _recipe(path: str) -> Finding:
    what = f"recipe {path}"
    try:
        recipe = load_recipe(path)
    except UserError as error:
        return Finding(what, "broken", str(error))
    lacks = []
    for step in (*recipe.steps, *(recipe.clips.steps if recipe.clips else ())):
        try:
            step.stage.check_settings()
            step.stage.check_available()
            check_placement(step.resources, step.stage)
        except UserError as error:
            lacks.append(str(error))
    try:
        pool = f"{recipe.pool.listing().shards.num_rows:,} shards"
    except (UserError, OSError) as error:
        lacks.append(f"pool: {error}")
    return (
        Finding(what, "missing", "\n".join(dict.fromkeys(lacks)))
        if lacks
        else Finding(what, "ok", f"ready, pool of {pool}")
    )
