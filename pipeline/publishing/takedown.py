"""Remove images from a publication on request: out of every shard, and out of all that is published later.

The removal is written down first (`manifests.removals`), then each shard that has such images is written anew, then the
card. Each file is replaced whole. So after a kill a shard is the old or the new one, and the next `publish` goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import polars as pl

from core.cpus import count_cpus
from core.errors import UserError
from manifests.removals import (
    REMOVED,
    Removals,
    Takedown,
    add_takedown,
    removals_in,
    takedowns_in,
    text_hash,
    united,
    url_hash,
)
from manifests.run import Run
from manifests.shard_copies import write_without
from manifests.shards import LISTS
from manifests.storage import Folder
from pipeline.publishing.card_update import update_card
from pipeline.publishing.croissant import update_croissant
from pipeline.publishing.publication import SETTINGS, Publication, Shards, stored_publication
from pipeline.publishing.removal_requests import FOUND, Names, Request, divide_old, refuse_ambiguous
from pipeline.publishing.removed_rows import identities_of_run, look_up, removed_from
from pipeline.publishing.shard_hashes import forget_hashes

_WRITERS = 4  # shards that are written at the same time: each holds a row group of up to 256 MiB twice


@dataclass(frozen=True)
class TakenDown:
    """The result of `take_down`.

    Attributes:
        where: URL or path of the publication, for the user.
        images: Published images that were removed.
        shards: The shards that were written anew.
        kept_out: Images of the run that were not published, and are kept out of later publications.
        generation: The generation of these shards; None: nothing was to be removed.
        duplicates: Of these images, those with the bytes of one that was named: the SHA-256 by id.
        before: Requests that an earlier call has met.
        unknown: Requests that name nothing.
    """

    where: str
    images: int = 0
    shards: tuple[str, ...] = ()
    kept_out: int = 0
    generation: int | None = None
    duplicates: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Orders:
    """What is to be removed, and how.

    Attributes:
        requests: The requests.
        listed_in: Path of their list, for errors.
        missing_ok: Whether requests may name nothing. Hashes and URLs among them are kept out from now on.
        with_reasons: Whether the reasons may be published.
    """

    requests: Sequence[Request]
    listed_in: str
    missing_ok: bool = False
    with_reasons: bool = False


def take_down(orders: Orders, out: Folder, where: str, run: Run | None = None) -> TakenDown:
    """Remove images from a publication, and from all later publications of a run.

    Args:
        orders: What is to be removed.
        out: The folder of the publication. With a run, nothing need be published there.
        where: URL or path of the publication, for the user.
        run: The run; None: only this publication is changed.

    Raises:
        UserError: A request is unknown or ambiguous, or the publication is damaged; then nothing is removed.
    """
    publication = stored_publication(out, where) if not run or out.join(LISTS).exists(SETTINGS) else None
    if publication:
        for subset in publication.subsets:  # of a killed writer: nobody else works here, and the images may be in them
            publication.out.join(subset).sweep_aside(older_than=0)
        finish_takedowns(publication)
    shards: Shards = publication.existing() if publication else {}
    removed, requests = _removed_before(publication, run), orders.requests
    found = _named(orders, out, shards, run)
    before, unknown = divide_old(found, requests, removed)
    if unknown and not orders.missing_ok:
        raise UserError(_unknown(unknown, orders.listed_in))
    wanted = _removals(found, requests, unknown)
    gone = removed_from(out, shards, wanted)
    duplicates = gone.join(found, on="id", how="anti").unique("id")
    wanted |= Removals(ids=frozenset(gone["id"].to_list()))
    if run and (new := wanted - removals_in(run.folder.join(REMOVED))):
        add_takedown(run.folder.join(REMOVED), Takedown(new, reasons=_reasons(found, requests), finished=True))
    done = TakenDown(
        where,
        kept_out=len(wanted.ids - removed.ids - set(gone["id"].to_list())),
        duplicates={str(id_): digest for id_, digest in duplicates.select("id", "sha256").iter_rows()},
        before=tuple(request.text for request in before),
        unknown=tuple(request.text for request in unknown),
    )
    if not publication or not (gone.height or wanted - removals_in(publication.lists)):
        return done
    reasons = _reasons(found, requests) if orders.with_reasons else {}
    takedown = _begin(publication, wanted, gone, reasons)
    finish_takedowns(publication)
    return replace(
        done,
        images=takedown.images,
        shards=takedown.shards,
        generation=takedown.generation if takedown.images else None,
    )


def adopt_removals(publication: Publication, removals: Removals) -> None:
    """Remove from a publication what was removed elsewhere, and finish takedowns that were cut off.

    Raises:
        UserError: A shard is damaged.
    """
    finish_takedowns(publication)
    new = removals - removals_in(publication.lists)
    if not new:
        return
    gone = removed_from(publication.out, publication.existing(), new)
    _begin(publication, new | Removals(ids=frozenset(gone["id"].to_list())), gone, {})
    finish_takedowns(publication)


def finish_takedowns(publication: Publication) -> None:
    """Write the shards of takedowns anew that were decided and are not finished.

    Raises:
        UserError: A shard is damaged.
    """
    takedowns = takedowns_in(publication.lists)
    for takedown in takedowns:
        if takedown.finished:
            continue
        existing = [name for name in takedown.shards if publication.out.exists(name)]
        for subset in publication.subsets:
            publication.out.join(subset).sweep_aside()
        forget_hashes(publication, takedown.shards)
        write = partial(write_without, publication.out, ids=takedown.removals.ids)
        with ThreadPoolExecutor(min(_WRITERS, count_cpus())) as writers:
            list(writers.map(write, existing))
        if takedown.shards:
            update_card(publication, takedowns)
            update_croissant(publication, publication.published().height)
        publication.lists.write(takedown.name, replace(takedown, finished=True).to_bytes())


def removals_at(where: str) -> Removals:
    """Return what was removed from a publication or a run.

    Args:
        where: Its path or URL.

    Raises:
        UserError: There is neither, or a file is damaged.
    """
    folder = Folder.at(where)
    if folder.exists("recipe.yaml"):
        return removals_in(folder.join(REMOVED))
    return removals_in(stored_publication(folder, where).lists)


def _named(orders: Orders, out: Folder, shards: Shards, run: Run | None) -> pl.DataFrame:
    """Return what the requests name in shards and in a run, as `FOUND`.

    Raises:
        UserError: A request is ambiguous.
    """
    names = Names(orders.requests)
    found = [pl.DataFrame(schema=dict(FOUND)), *look_up(out, shards, names.found_in)]
    found += [names.found_in(identities_of_run(run))] if run else []
    named = pl.concat(found).unique()
    refuse_ambiguous(named, orders.requests, orders.listed_in)
    return named


def _begin(publication: Publication, removals: Removals, gone: pl.DataFrame, reasons: dict[str, int]) -> Takedown:
    """Store a takedown before a shard is changed. `gone` are the published images that it removes (`removed_from`)."""
    names = tuple(sorted(gone["name"].unique()))
    takedown = Takedown(removals, gone["id"].n_unique(), names, reasons, finished=not names)
    return add_takedown(publication.lists, takedown)


def _removals(found: pl.DataFrame, requests: Sequence[Request], unknown: Iterable[Request]) -> Removals:
    """Return what the requests remove: the images that they name, and the hashes and URLs in them."""
    named = [*(requests[number] for number in found["request"].unique()), *unknown]
    urls = {url_hash(request.value) for request in named if request.may_be("url")}
    asked = {request.value.lower() for request in unknown if request.may_be("sha256")}
    return Removals(
        ids=frozenset(found["id"].to_list()),
        sha256=frozenset({*found["sha256"].drop_nulls().to_list(), *asked}),
        urls=frozenset(url for url in urls if url),
        requests=frozenset(text_hash(requests[number].text) for number in found["request"].unique()),
    )


def _removed_before(publication: Publication | None, run: Run | None) -> Removals:
    folders = [publication.lists] if publication else []
    folders += [run.folder.join(REMOVED)] if run else []
    return united(map(removals_in, folders))


def _reasons(found: pl.DataFrame, requests: Sequence[Request]) -> dict[str, int]:
    """Return the number of images by reason."""
    first = found.unique("id", keep="first", maintain_order=True)["request"]
    reasons = Counter(requests[number].reason for number in first)
    return {reason: count for reason, count in sorted(reasons.items()) if reason}


def _unknown(unknown: Sequence[Request], listed_in: str) -> str:
    shown = ", ".join(request.text for request in unknown[:5])
    more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
    return f"{listed_in}: names no image here: {shown}{more}; nothing is removed; --missing-ok removes the others"
