"""Requests to remove images: a list with an id, SHA-256, URL or key a line, and which images they name.

Nothing is guessed. A request that names nothing, or that names one image by its id and another by its key, is told.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from core.errors import UserError
from core.text import printable
from core.url_form import comparable_url, host_forms
from manifests.removals import Removals, text_hash

KINDS = ("id", "sha256", "url", "key")
FOUND: Mapping[str, pl.DataType] = {
    "request": pl.UInt32(),
    "kind": pl.String(),
    "id": pl.Int64(),
    "sha256": pl.String(),
    "origin": pl.String(),
}
"""Columns of what requests name: number of the request, what it is, the image, its hash, and where it came from."""

_LONGEST_LINE = 1 << 16
_REASON = re.compile(r"\t|\s+#")
_KIND = re.compile(rf"({'|'.join(KINDS)}):\s*(.*)")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_ID = re.compile(r"-?\d{1,19}")
_IDS = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class Request:
    """One line of a list.

    Attributes:
        value: What names the image.
        kind: One of `KINDS`, if the line says which; else the empty text.
        reason: What stands behind a tab or ` #`; may be empty.
    """

    value: str
    kind: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        return f"{self.kind}:{self.value}" if self.kind else self.value

    def may_be(self, kind: str) -> bool:
        """Return whether it can name an image by this kind of name."""
        if self.kind and self.kind != kind:
            return False
        match kind:
            case "id":
                return bool(_ID.fullmatch(self.value)) and int(self.value) in _IDS
            case "sha256":
                return bool(_SHA256.fullmatch(self.value))
            case "url":
                return comparable_url(self.value) is not None
        return True


def parse_requests(lines: Iterable[str], where: str) -> list[Request]:
    """Return the requests of a list, each once. Empty lines and lines that begin with `#` say nothing.

    Args:
        lines: The lines.
        where: Path of the list, for errors.

    Raises:
        UserError: A line is too long, or cannot be what it says it is; or there are no requests.
    """
    requests: dict[str, Request] = {}
    for number, line in enumerate(lines, start=1):
        if len(line) > _LONGEST_LINE:
            raise UserError(f"{where}:{number}: the line is longer than {_LONGEST_LINE:,} characters: one name a line")
        request = _parsed(line)
        if request is None:
            continue
        if request.kind and not request.may_be(request.kind):
            raise UserError(f"{where}:{number}: {printable(request.value)!r} is no {request.kind}")
        requests.setdefault(request.text, request)
    if not requests:
        raise UserError(f"{where}: names no image: write an id, SHA-256, URL or key on each line")
    return list(requests.values())


def _parsed(line: str) -> Request | None:
    text = line.removeprefix("\ufeff").strip()  # with this mark a file of Windows begins
    if not text or text.startswith("#"):
        return None
    value, *reason = _REASON.split(text, maxsplit=1)
    if match := _KIND.fullmatch(value):
        return Request(match[2].strip(), match[1], "".join(reason).strip())
    return Request(value, reason="".join(reason).strip())


class Names:
    """The names in requests, prepared to be looked up in rows."""

    def __init__(self, requests: Sequence[Request]) -> None:
        of_kind = {kind: [(n, r.value) for n, r in enumerate(requests) if r.may_be(kind)] for kind in KINDS}
        self._ids = _names([(int(value), number) for number, value in of_kind["id"]], pl.Int64())
        self._sha256 = _names([(value.lower(), number) for number, value in of_kind["sha256"]], pl.String())
        self._keys = _names([(value, number) for number, value in of_kind["key"]], pl.String())
        self._urls = _names([(comparable_url(value), number) for number, value in of_kind["url"]], pl.String())
        self._hosts = sorted({form for _, url in of_kind["url"] for form in host_forms(url)})

    def found_in(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Return what requests name in rows (columns `manifests.shard_copies.IDENTITY`), as `FOUND`."""
        origin = pl.concat_str("source_shard", "source_key", separator="/")
        named = rows.with_columns(pl.col("sha256").str.to_lowercase(), origin=origin)
        candidates = named.filter(pl.col("url").str.to_lowercase().str.contains_any(self._hosts))
        forms = candidates.with_columns(name=pl.col("url").map_elements(comparable_url, pl.String))
        found = [
            _joined(named.with_columns(name="id"), self._ids, "id"),
            _joined(named.with_columns(name="sha256"), self._sha256, "sha256"),
            _joined(named.with_columns(name="source_key"), self._keys, "key"),
            _joined(named.with_columns(name="origin"), self._keys, "key"),
        ]
        if self._urls.height:
            found.append(_joined(forms, self._urls, "url"))
        return pl.concat(pl.collect_all(found, engine="streaming")).unique()


def refuse_ambiguous(found: pl.DataFrame, requests: Sequence[Request], where: str) -> None:
    """Refuse requests that name different images in two ways.

    Args:
        found: What the requests name, as `FOUND`.
        requests: The requests.
        where: Path of the list, for errors.

    Raises:
        UserError: There is such a request.
    """
    problems = []
    for number, of_request in _by_request(found).items():
        value, by_kind = printable(requests[number].value), defaultdict[str, set[int]](set)
        for kind, id_, _ in of_request:
            by_kind[kind].add(id_)
        if len({frozenset(ids) for ids in by_kind.values()}) > 1:
            kinds = sorted(by_kind, key=KINDS.index)
            problems.append(
                f"{value!r} is the {' of one image and the '.join(kinds)} of another: write "
                f"{' or '.join(f'{kind}:{value}' for kind in kinds)}"
            )
        origins = sorted({str(origin) for kind, _, origin in of_request if kind == "key"})
        if len(origins) > 1:
            problems.append(f"{value!r} is a key in {len(origins):,} files: write {origins[0]}, {origins[1]}, or ids")
    if problems:
        others = f" ({len(problems) - 1:,} more lines are like this)" if len(problems) > 1 else ""
        raise UserError(f"{where}: {problems[0]}{others}; nothing is removed")


def divide_old(
    found: pl.DataFrame, requests: Sequence[Request], removed: Removals
) -> tuple[list[Request], list[Request]]:
    """Return the requests that name nothing new: those that were met before, and those that are unknown."""
    named = set(found["request"])
    new = set(found.filter(~pl.col("id").is_in(sorted(removed.ids)))["request"])
    old = [(number in named, request) for number, request in enumerate(requests) if number not in new]
    before = [request for is_named, request in old if is_named or _was_met(request, removed)]
    return before, [request for _, request in old if request not in before]


def _was_met(request: Request, removed: Removals) -> bool:
    if text_hash(request.text) in removed.requests:
        return True
    if request.may_be("id") and int(request.value) in removed.ids:
        return True
    if request.may_be("sha256") and request.value.lower() in removed.sha256:
        return True
    form = comparable_url(request.value) if request.may_be("url") else None
    return form is not None and text_hash(form) in removed.urls


def _by_request(found: pl.DataFrame) -> Mapping[int, list[tuple[str, int, str | None]]]:
    rows: dict[int, list[tuple[str, int, str | None]]] = defaultdict(list)
    for number, kind, id_, origin in found.select("request", "kind", "id", "origin").iter_rows():
        rows[number].append((kind, id_, origin))
    return rows


def _names(named: Sequence[tuple[int | str | None, int]], type_: pl.DataType) -> pl.DataFrame:
    """Return names with the numbers of their requests. Several requests may have the same name."""
    columns = {"name": [name for name, _ in named], "request": [number for _, number in named]}
    return pl.DataFrame(columns, {"name": type_, "request": pl.UInt32()})


def _joined(rows: pl.LazyFrame, names: pl.DataFrame, kind: str) -> pl.LazyFrame:
    return (
        rows.join(names.lazy(), on="name", how="inner")
        .with_columns(kind=pl.lit(kind))
        .select(pl.col(name).cast(type_) for name, type_ in FOUND.items())
    )
