"""On a cluster that was joined: check that every node sees the same local files, before anything is computed.

A worker that lacks a file makes errors of the rows that it gets, and one that writes to a disk of its own loses them.
A node that joins later is not looked at; its workers still compare the hash of their weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from core.cluster import is_joined, refuse_relative
from core.errors import UserError
from core.pretrained import is_local
from manifests.run import index_table
from manifests.storage import ASIDE, Folder
from pipeline.execution.ray_session import result_of, start_ray
from pipeline.pools import Listing, Pool
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from ray import ObjectRef

_SHARDS = 32  # of a pool that are compared, spread over it

Files = Mapping[str, int]
"""The bytes of each file of a folder, by its relative name; of a single file, by an empty name."""


class LocalPath(NamedTuple):
    """A path of this machine, and what a recipe needs it for."""

    what: str
    path: str


def check_absolute(recipe: Recipe, run: str, only: Sequence[str] | None = None, out: str | None = None) -> None:
    """Check, if a cluster is to be joined, that no path is relative; nothing is read.

    Args:
        recipe, run, only, out: See `check_nodes`.

    Raises:
        UserError: See `refuse_relative`.
    """
    refuse_relative(run, "run")
    refuse_relative(recipe.pool.where, "pool")
    for what, path in _models(recipe, only):
        refuse_relative(path, what)
    if out:
        refuse_relative(out, "out")


def check_nodes(
    recipe: Recipe, run: str, listing: Listing | None = None, only: Sequence[str] | None = None, out: str | None = None
) -> None:
    """Check, on a cluster that was joined, that its nodes see the recipe's files as this machine does.

    A path that this machine lacks is left out: a finished run needs neither its models nor its pool.

    Args:
        recipe: The recipe.
        run: The run directory; it need not exist.
        listing: The listed pool; None: shards of the index are compared.
        only: Names of the steps whose models are compared; None: all.
        out: The folder of a dataset, besides the run directory.

    Raises:
        UserError: A path is relative, or a node does not have the same files; the text names the node.
    """
    if not is_joined():
        return
    check_absolute(recipe, run, only, out)
    folders = {"run": run, **({"out": out} if out else {})}
    paths = [*_models(recipe, only), *pool_files(recipe.pool, run, listing)]
    with ExitStack() as stack:
        for what, path in folders.items():
            folder = Folder.at(path)
            if folder.local:
                paths.append(LocalPath(what, stack.enter_context(_probe(Path(folder.path))).name))
        here = look(paths)
        if here:
            _compare(here, folders)


def _compare(here: Mapping[LocalPath, Files], folders: Mapping[str, str]) -> None:
    for node, there in _other_nodes(list(here)).items():
        for path, files in here.items():
            if problem := difference(files, there.get(path)):
                shown = folders.get(path.what, path.path)  # not the name of the file that was made for the check
                raise UserError(
                    f"{path.what}: {shown}: {problem} on {node}; use a file system that all nodes share, or give every "
                    "node the same files"
                )


def look(paths: Sequence[LocalPath]) -> dict[LocalPath, Files]:
    """Return the files at those of the paths where this machine has any."""
    seen = {path: _files(Path(path.path).expanduser()) for path in paths}
    return {path: files for path, files in seen.items() if files is not None}


def difference(here: Files, there: Files | None) -> str:
    """Say how the files of another machine differ from those of this one; empty: each of these is there, as long."""
    if there is None:
        return "is not there"
    for name in sorted(here):
        if name not in there:
            return f"{name} is not there"
        if here[name] != there[name]:
            return f"{name or 'it'} has {here[name]:,} bytes here and {there[name]:,}"
    return ""


def _files(path: Path) -> Files | None:
    if path.is_file():
        return {"": path.stat().st_size}
    if not path.is_dir():
        return None
    return {str(file.relative_to(path)): file.stat().st_size for file in path.rglob("*") if file.is_file()}


def _models(recipe: Recipe, only: Sequence[str] | None) -> Iterator[LocalPath]:
    """Yield the local files that stages read besides images: models, a benchmark."""
    for step in recipe.steps:
        if only is None or step.name in only:
            for name, path in step.stage.model_files.items():
                if is_local(path):
                    yield LocalPath(f"{step.name}: {'model' if name in step.stage.models else name}", path)


def pool_files(pool: Pool, run: str, listing: Listing | None) -> Iterator[LocalPath]:
    """Yield some local files of a pool, spread over it: of its listing, else of the run's index."""
    root = listing.root if listing else pool.root()
    if not root.local:
        return
    if listing:
        step = -(-listing.shards.num_rows // _SHARDS)
        names = listing.shards["path"].to_pylist()[::step]
    else:
        index = index_table(Folder.at(run)).scan(["shard"])
        rows = index.select(pl.len()).collect(engine="streaming").item()
        every = index.gather_every(-(-rows // _SHARDS) or 1).collect(engine="streaming")
        names = every["shard"].unique(maintain_order=True).to_list()
    files = dict.fromkeys(name.partition("//")[0] for name in names)  # of clips: the file that holds their film
    yield from (LocalPath("pool", f"{root.path}/{name}") for name in files)


def _probe(folder: Path) -> tempfile._TemporaryFileWrapper[bytes]:
    """Return a new file in the folder, or in the nearest one above it; it is deleted when it is closed."""
    place = next(above for above in (folder, *folder.parents) if above.is_dir())
    return tempfile.NamedTemporaryFile(dir=place, prefix=f"{ASIDE}node-check-")


def _other_nodes(paths: Sequence[LocalPath]) -> dict[str, dict[LocalPath, Files]]:
    """Return what each other node sees that computes, by a name for it."""
    start_ray()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {
        f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})": task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(paths)
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != here and (node["Resources"].get("CPU") or node["Resources"].get("GPU"))
    }
    return {node: _answer(node, answer) for node, answer in asked.items()}


def _answer(node: str, asked: ObjectRef) -> dict[LocalPath, Files]:
    """Return what a node sees.

    Raises:
        UserError: The package is not installed there, or Ray stopped.
    """
    from ray.exceptions import RayTaskError

    try:
        seen: dict[LocalPath, Files] = result_of(asked)
    except RayTaskError as error:
        reason = str(error).strip().rpartition("\n")[2]
        if not reason.startswith(("ModuleNotFoundError: ", "ImportError: ")):
            raise
        raise UserError(
            f"{node} cannot import vl3syn or what it needs: use the same image or environment on every node, or submit "
            f"the checkout with --working-dir ({reason})"
        ) from error
    return seen
