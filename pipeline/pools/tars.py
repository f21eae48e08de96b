"""Pools of webdataset tars."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar

import polars as pl

from core.errors import UserError
from manifests.storage import Folder
from manifests.tables import Table, writer_of
from pipeline.pools.globs import GlobPool
from pipeline.pools.images import SPAN, Failure, Group
from pipeline.pools.listing import Listing, Shard, is_candidate
from pipeline.pools.packed import START, packed, packed_name
from pipeline.pools.rows import TEXT_LIMIT, Row, alt_text_line, on_disk
from pipeline.pools.side_files import Note, pair_members, read_note
from pipeline.pools.tar_rows import Notes, tar_rows

_GAP = 256 << 10  # bytes; reading over such a gap is faster than another request
_MEMBERS = 200  # tar members that are searched for alt text
_READ = 1 << 20  # bytes per request to an object store


class Tars(GlobPool):
    """A glob of webdataset tars with images and, optionally, `.txt` (alt text) and `.json` members.

    Attributes:
        alt_text: Where the alt text is, if not under a usual name (`rows.NOTES`): a key of the `.json` members or the
            ending of a side file.
    """

    ending: ClassVar = ".tar"
    like_shards: ClassVar = (".tar", ".zip")

    alt_text: str | None = None

    def like_shard(self, path: str) -> str | None:
        return packed_name(path) or super().like_shard(path)

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        with on_disk(root, shard.path) as file:
            notes: Notes = {}
            rows = list(tar_rows(file, notes, self.alt_text, passed_over))
        images = [row for row in rows if row["key"] or row["offset"]]
        texts = pair_members([(row["offset"], row["key"]) for row in images], notes)
        for row, text in zip(images, texts, strict=True):
            yield {**text, **row}
        yield from rows[len(images) :]

    def joins(self, group: Group, offset: int, length: int) -> bool:
        return 0 <= offset - group.end <= _GAP and offset + length - group.offsets[0] <= SPAN

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        start = group.offsets[0]
        with root.filesystem.open_input_file(f"{root.path}/{group.shard}") as file:
            span = memoryview(file.read_at(group.end - start, start))
        images: list[bytes | Failure] = []
        for offset, length in zip(group.offsets, group.lengths, strict=True):
            data = bytes(span[offset - start : offset - start + length])
            missing = f"cut off: {len(data):,} of {length:,} bytes are there"
            images.append(data if len(data) == length else Failure(missing))
        return images

    def check_first(self, listing: Listing) -> Listing:
        path = listing.shards["path"][0].as_py()
        try:
            with listing.root.filesystem.open_input_file(f"{listing.root.path}/{path}") as file:
                if error := packed(file.read(START)):
                    raise UserError(f"{self.kind}: {path}: {error}")
                file.seek(0)
                notes = _side_files(io.BufferedReader(file, _READ), self.alt_text)
                some = [note for note in islice(notes, _MEMBERS) if note]
                if self.alt_text is not None and not any(note.source for note in some):
                    some += [note for note in notes if note and note.source][:1]
        except UserError:
            raise
        except (OSError, ValueError, tarfile.TarError):  # indexing reports it later
            return listing
        sources = [note.source for note in sorted(some, key=lambda note: note.rank) if note.source]
        if self.alt_text is not None and not sources:
            name = self.alt_text.lstrip(".")
            raise UserError(f"{self.kind}: {path}: alt_text: no side file ends in .{name}, and no .json has that key")
        return replace(listing, alt_text=alt_text_line(list(dict.fromkeys(sources)), path))

    def misread(self, index: Table) -> list[str]:
        """See `Pool.misread`; `reader` in the provenance of the index is the version (`execution/index.py`)."""
        readers = {writer: provenance.get("reader", 1) for writer, provenance in index.provenances().items()}
        dotted, others = (_written_by(index, [w for w, n in readers.items() if n in old]) for old in ((1,), (1, 2)))
        wrong = [] if dotted is None else [dotted.join(_mixed(index), on="shard", how="semi")]
        wrong += [] if others is None else [others.join(_changed_since(index), on="shard", how="semi")]
        return pl.concat(wrong).collect()["shard"].unique().sort().to_list() if wrong else []


def _side_files(file: io.BufferedReader, alt_text: str | None) -> Iterator[Note | None]:
    """Yield the note of each tar member; None for images and for members that hold no metadata."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            if is_candidate(member.name) or not member.isreg() or member.size > TEXT_LIMIT:
                yield None
            else:
                yield read_note(member.name, archive.extractfile(member).read(), alt_text)  # type: ignore[union-attr]


def _written_by(index: Table, writers: Sequence[str]) -> pl.LazyFrame | None:
    """Return the shards with rows from these jobs: column `shard`; None if `writers` is empty."""
    if not writers:
        return None
    places, parts = index.locate()
    old = [number for number, part in enumerate(parts) if writer_of(part) in writers]
    places = index.scan(["id", "shard"]).join(places.filter(pl.col("part").is_in(old)), on="id", how="semi")
    return places.select("shard").unique()


def _mixed(index: Table) -> pl.LazyFrame:
    """Return the shards with names that are equal up to the first dot and differ up to the last one."""
    rows = index.scan(["shard", "key"])
    dotted = rows.filter(pl.col("key").str.contains(r"\.[^/]*\.[^/]*$")).select("shard").unique()
    shards = dotted.collect(engine="streaming")["shard"]
    first, full = (pl.col("key").str.replace(ending, "") for ending in (r"\.[^/]*$", r"\.[^./]*$"))
    groups = rows.filter(pl.col("shard").is_in(shards.implode())).group_by("shard", first.alias("first"))
    return groups.agg(full.n_unique().alias("names")).filter(pl.col("names") > 1).select("shard").unique()


def _changed_since(index: Table) -> pl.LazyFrame:
    """Return the shards with images of the same name, or with texts in which bytes became U+FFFD."""
    rows = index.scan(["shard", "alt_text", "error"])
    again = pl.col("error").str.starts_with("duplicate name") | pl.col("alt_text").str.contains("\ufffd", literal=True)
    return rows.filter(again).select("shard").unique()
