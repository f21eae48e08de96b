"""The kinds of pools: the project's by name, any other by the path of its class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from core.errors import UserError, suggest
from core.plugins import class_at, is_path
from core.settings import problem
from manifests.run import Run, open_run
from pipeline.pools.base import Pool
from pipeline.pools.clips import Clips
from pipeline.pools.files import ImageFiles
from pipeline.pools.img2dataset import Downloads
from pipeline.pools.parquet import ParquetImages
from pipeline.pools.tars import Tars
from pipeline.pools.urls import UrlTables
from pipeline.pools.videos import Videos

POOLS: Mapping[str, type[Pool]] = {
    "images": ImageFiles,
    "tars": Tars,
    "parquet": ParquetImages,
    "img2dataset": Downloads,
    "urls": UrlTables,
    "videos": Videos,
    "clips": Clips,
}


ENTRY_POINTS = "vl3syn.pools"
"""The group of entry points under which a package offers kinds to `guess`: `zips = "my_package.pools:Zips"`."""


def known_kinds() -> Mapping[str, type[Pool]]:
    """Return every kind that a path is compared with: this project's by name, others by the path of their class."""
    ours = {name: kind for name, kind in POOLS.items() if kind is not Clips}  # a run directory is never guessed
    return {**ours, **{point.value: class_at(point.value, Pool) for point in entry_points(group=ENTRY_POINTS)}}


def pool_of(**settings: Any) -> Pool:
    """Return the pool with these settings, as a recipe gives them.

    One of them is the name of a kind with the path, glob or URL: `tars="*.tar"`. A kind of another package is named by
    the path of its class: `kind="my_package.pools:Zips", where="*.zip"`. A path runs code: its module is imported.

    Raises:
        UserError: There is not exactly one kind, or a setting is unknown or invalid.
    """
    valid = sorted({*POOLS, *(name for kind in POOLS.values() for name in kind.model_fields)})
    settings = {key: value for key, value in settings.items() if value is not None or key not in valid}
    names = [name for name in (*POOLS, "kind") if name in settings]
    if len(names) != 1:
        unknown = [key for key in settings if key not in valid]
        if unknown and not names:
            raise UserError(f"unknown key {unknown[0]!r}{suggest(unknown[0], valid)}")
        raise UserError(f"a pool is exactly one of {', '.join(POOLS)}, or a kind by the path of its class")
    name = names[0]
    if name != "kind":
        settings = {"kind": name, "where": settings.pop(name), **settings}
    kind = _kind(str(settings["kind"]))
    options = [key for key in kind.model_fields if key not in ("kind", "where", "films")]
    for key in settings:
        if key not in ("kind", "where", *options):
            raise UserError(f"a pool of {settings['kind']} has no setting {key!r}{suggest(key, options)}")
    if kind is Clips:
        settings["films"] = films_of(str(settings["where"]))
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise UserError(problem(error).replace("where:", f"{name}:") if name in POOLS else problem(error)) from error


def parse_pool(written: object) -> Pool:
    """Return the pool that a recipe or the command line describes, or the pool itself.

    Raises:
        UserError: See `pool_of`; or the pool is described by something other than a mapping.
    """
    if isinstance(written, Pool):
        return written
    if not isinstance(written, dict):
        raise UserError(f"must be a mapping, not {written!r}")
    return pool_of(**{str(key): value for key, value in written.items()})


def films_of(run: str) -> Pool:
    """Return the pool of a run of films.

    Raises:
        UserError: There is no run, or it is not one of films.
    """
    pool = parse_pool(open_run(run).recipe.get("pool"))
    if not pool.has_films or isinstance(pool, Clips):
        raise UserError(f"clips: {run} is not a run of films: its pool must be one, as in `videos: DIR`")
    return pool


def noun_of(run: Run) -> str:
    """Return what a row of a run is, for messages: `image`, `film` or `clip` (`Pool.noun`).

    It is `row` for a pool of another package: to look at a run must not run its code.
    """
    kinds = [kind for name, kind in POOLS.items() if name in (run.recipe.get("pool") or {})]
    return kinds[0].noun if kinds else "row"


def as_recipe(pool: Pool) -> dict[str, Any]:
    """Return the settings from which `pool_of` makes the same pool in any working directory."""
    settings = pool.model_dump(mode="json", exclude_none=True)
    kind, where = settings.pop("kind"), settings.pop("where")
    where = where.rstrip("/") if "://" in where else os.path.abspath(where)
    return {kind: where, **settings} if kind in POOLS else {"kind": kind, "where": where, **settings}


def _kind(name: str) -> type[Pool]:
    if is_path(name):
        return class_at(name, Pool)
    if name not in POOLS:
        raise UserError(f"kind: unknown kind {name!r}{suggest(name, POOLS)}")
    return POOLS[name]
