"""Guess the kind of a pool from what lies at its path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import UserError
from manifests.storage import Folder
from pipeline.pools.base import Pool
from pipeline.pools.look import Look
from pipeline.pools.registry import POOLS, known_kinds, pool_of


def guess_pool(where: str, options: Mapping[str, Any], leave_out: Folder | None = None) -> tuple[Pool, str]:
    """Return the pool at a path, and what it was taken for, as a line for the user.

    Args:
        where: A folder, file, glob or URL.
        options: Other settings of the pool, by name. Only kinds that have them all come into question.
        leave_out: A folder in the pool that is not part of it: the run directory.

    Raises:
        UserError: There is nothing, no kind recognises it, or several do. The text says what was seen.
    """
    look = Look.at(where, leave_out, follow_links=bool(options.get("follow_links")))
    kinds = {name: kind for name, kind in known_kinds().items() if options.keys() <= kind.model_fields.keys()}
    paths = [{name: where} if name in POOLS else {"kind": name, "where": where} for name in kinds]
    pools = [pool_of(**path, **options) for path in paths]
    recognised = [(pool, what) for pool in pools if (what := pool.recognises(look))]
    recognised = [(pool, what) for pool, what in recognised if pool.encloses] or recognised
    if len(recognised) == 1:
        pool, what = recognised[0]
        return pool, f"{where}: {what}"
    if not recognised:
        raise UserError(f"{where}: no pool is recognised ({look.summary()}); say what it is: {_options(kinds)}")
    seen = " and ".join(what for _, what in recognised)
    raise UserError(f"{where} holds {seen}; say which is the pool: {_options(pool.kind for pool, _ in recognised)}")


def _options(kinds: Iterable[str]) -> str:
    return " or ".join(f"--{kind}" if kind in POOLS else f"`kind: {kind}` in a recipe" for kind in kinds)
