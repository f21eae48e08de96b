"""Near-duplicates: how like an image is to the likest better one of its group, by embedding and by perceptual hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import field_validator

from core.errors import UserError
from core.stages import GroupedStage
from manifests.balance import priority
from manifests.embeddings import is_embedding, to_matrix
from manifests.schemas import ERROR, column

TILE = 1024
"""Rows that are compared with so many others at once: 1024² numbers of 8 bytes, and what is made of them."""

FIRST_SIMILARITY, FIRST_DISTANCE = -1.0, 64
"""What a row has that nothing ranks before: the value that every threshold lets pass."""

Method = Literal["semantic", "perceptual"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_READS: Mapping[str, str] = {"semantic": "image_embedding", "perceptual": "phash"}
_RANKED_BY = ("id", "width", "height", "bytes")
_WRITES: Mapping[str, Sequence[pa.Field]] = {
    "semantic": (
        column(
            "duplicate_similarity",
            pa.float32(),
            "Largest cosine to an image of its group that ranks before it; -1: there is none",
            -1,
            1,
            reference_column="duplicate_of",
        ),
        column("duplicate_of", pa.int64(), "That image's id; null: there is none", nominal=True),
    ),
    "perceptual": (
        column(
            "phash_distance",
            pa.int32(),
            "Fewest bits in which its phash differs from one that ranks before it in its group; 64: there is none",
            0,
            64,
            reference_column="phash_duplicate_of",
        ),
        column("phash_duplicate_of", pa.int64(), "That image's id; null: there is none", nominal=True),
    ),
}


class Duplicates(GroupedStage):
    """How like each image is to the likest one that ranks before it in its group, and which one that is.

    The one pass of SemDeDup (Abbas et al. 2023, arXiv 2303.09540): compare only within clusters, order the
    rows of a cluster, store each row's maximum over the rows before it. Any threshold is then a rule over a stored
    column: `max_duplicate_similarity: 0.95`, `min_phash_distance: 11`. They order by the distance to the centroid; here
    the better copy comes first: more pixels, then more bytes (unknown last), then a hash of the id, then the id.

    `benchmarks/duplicates.py` measures thresholds. A phash within 10 bits (`min_phash_distance: 11`) finds copies that
    were compressed again, scaled, or cropped by 2 % on each side; none that are mirrored. A cosine finds what the
    encoder calls alike: by `conse` also other things of one class. The larger a group, the more of its rows are near
    another by chance.

    The first of a group has the similarity -1 and the distance 64, and so has a row without a phash the distance 64 (it
    has no structure: nothing is its copy): these pass every rule, where null would not. `duplicate_of` is null there.

    Along a chain of copies, each like only the one before, all but the first are dropped, also those unlike the first.
    Pairs in different groups are not seen. A copy that was cropped or recoloured may lie across the border of two
    clusters: `border_duplicates` (clustering/borders.py) compares what lies between the same two clusters, and `within`
    may name a coarser level (`cluster_2`), at the cost of more pairs.

    The work of a group grows with the square of its rows. Memory is the table as it came, the vectors of the largest
    group in float32, and some arrays of 1024 × 1024 numbers.

    A row without a usable embedding, or of no group, is an error, and nothing is compared with it.

    Attributes:
        within: The column of the groups.
        by: `semantic` (cosines of `image_embedding`), `perceptual` (`phash`), or both, the default.
    """

    name: ClassVar = "duplicates"

    within: str = "cluster"
    by: tuple[Method, ...] = ("semantic", "perceptual")

    @field_validator("by")
    @classmethod
    def _in_order(cls, by: tuple[Method, ...]) -> tuple[Method, ...]:
        """One fingerprint for one meaning: each method once, always in the same order."""
        if not by:
            raise UserError("name `semantic`, `perceptual` or both")
        return tuple(method for method in ("semantic", "perceptual") if method in by)

    @property
    def group_by(self) -> str:
        return self.within

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*_RANKED_BY, self.within, *(_READS[method] for method in self.by)]))

    @property
    def writes(self) -> pa.Schema:
        return pa.schema([field for method in self.by for field in _WRITES[method]])

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        groups = inputs[self.within].type
        if not (pa.types.is_integer(groups) or pa.types.is_string(groups) or pa.types.is_large_string(groups)):
            raise UserError(f"within: {self.within} is a column of {groups}; groups are told by integers or strings")
        if "semantic" in self.by:
            vectors = inputs["image_embedding"]
            if not is_embedding(vectors) or vectors.type.value_type != pa.float16():
                raise UserError(f"image_embedding is {vectors.type}, not a fixed-size list of float16")

    def __call__(self, table: pa.Table) -> pa.Table:
        result = _Result(self.by, table["id"].to_numpy())
        names, codes = _codes(table[self.within])
        result.errors[codes == len(names)] = f"no group: nothing is stored in {self.within}"
        for rows in _groups(table, codes):
            if codes[rows[0]] < len(names):
                self._compare(table, rows, result)
        return result.table(self.writes)

    def _compare(self, table: pa.Table, rows: Ints, result: _Result) -> None:
        """Compare the rows of one group, which are given in the order of their ranks."""
        if "semantic" in self.by:
            vectors, errors = to_matrix(_take(table["image_embedding"], rows))
            good = np.array([error is None for error in errors], bool)
            result.errors[rows] = errors
            rows = rows[good]
            result.store("semantic", rows, _most_similar(vectors if good.all() else vectors[good]))
        if "perceptual" in self.by:
            hashes = _take(table["phash"], rows)
            rows = rows[hashes.is_valid().to_numpy(zero_copy_only=False)]
            result.store("perceptual", rows, _least_different(hashes.drop_null().to_numpy()))


class Nearest(NamedTuple):
    """What is nearest to each row among the rows before it.

    Attributes:
        value: The similarity, (rows).
        place: The place of the nearest row, the earliest of several; -1: there is none.
    """

    value: Floats
    row: Ints


class _Result:
    """The columns while they are being filled in."""

    def __init__(self, by: Sequence[Method], ids: Ints) -> None:
        self.ids = ids
        self.errors = np.full(len(ids), None, object)
        self.values = {
            "semantic": np.full(len(ids), FIRST_SIMILARITY, np.float32),
            "perceptual": np.full(len(ids), FIRST_DISTANCE, np.int32),
        }
        self.others = {method: np.full(len(ids), -1) for method in by}

    def store(self, method: Method, rows: Ints, nearest: Nearest) -> None:
        seen = nearest.row >= 0
        self.values[method][rows[seen]] = nearest.value[seen]
        self.others[method][rows[seen]] = rows[nearest.row[seen]]

    def table(self, writes: pa.Schema) -> pa.Table:
        failed = np.array([error is not None for error in self.errors], bool)
        columns: list[pa.Array] = []
        for method, others in self.others.items():
            columns.append(pa.array(self.values[method], mask=failed))
            columns.append(pa.array(self.ids[others], mask=others < 0))
        return pa.table([*columns, pa.array(self.errors, ERROR.type)], schema=writes.append(ERROR))


def _codes(groups: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """The groups' names, and for each row the place of its group's; one past the last for a row of none."""
    encoded = groups.combine_chunks().dictionary_encode()
    return encoded.dictionary, encoded.indices.fill_null(len(encoded.dictionary)).to_numpy().astype(np.int64)


def _groups(table: pa.Table, codes: Ints) -> Iterator[Ints]:
    """The rows of each group in the order of their ranks."""
    ids = table["id"].to_numpy()
    width, height, size = (
        table[name].cast(pa.int64()).fill_null(0).to_numpy() for name in ("width", "height", "bytes")
    )
    order = np.lexsort((ids, priority(ids, 0), -size, -width * height, codes))
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _take(column: pa.ChunkedArray, rows: Ints) -> pa.Array:
    """Some rows of a column. pyarrow's own `take` would put all chunks together first, for each group again."""
    order = np.argsort(rows)
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    parts = np.split(rows[order], np.searchsorted(rows[order], ends[:-1]))
    starts = [0, *ends[:-1]]
    taken = [c.take(pa.array(part - at)) for c, part, at in zip(column.chunks, parts, starts, strict=True) if len(part)]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(taken).take(pa.array(back)) if taken else column.slice(0, 0).combine_chunks()


def _most_similar(vectors: npt.NDArray[np.float32]) -> Nearest:
    """The largest cosine of each row and those before it, -1 to 1.

    It is the same to the last bit whatever the shapes of the products and the order of their sums: numbers that were
    float16 are multiples of 2⁻²⁴, so their products are of 2⁻⁴⁸, and sums of these below 2 (vectors of length 1) fit
    into the 53 bits of float64. No sum is ever rounded. What follows is one operation per number.
    """
    norms = np.concatenate([_norms(vectors[rows]) for rows in _tiles(len(vectors))] or [np.empty(0)])

    def cosines(rows: slice, before: slice) -> Floats:
        products: Floats = vectors[rows].astype(np.float64) @ vectors[before].astype(np.float64).T
        products /= norms[rows, None]
        products /= norms[before]
        return products

    value, row = _nearest_before(len(vectors), cosines)
    return Nearest(value.clip(-1, 1), row)


def _norms(vectors: npt.NDArray[np.float32]) -> Floats:
    doubles = vectors.astype(np.float64)
    norms: Floats = np.sqrt(np.einsum("nd,nd->n", doubles, doubles))
    return norms


def _least_different(hashes: Ints) -> Nearest:
    """The smallest Hamming distance of each hash and those before it, 0 to 64."""
    bits = hashes.view(np.uint64)  # of a signed number NumPy counts the bits of the absolute value

    def likeness(rows: slice, before: slice) -> npt.NDArray[np.int8]:
        differ: npt.NDArray[np.int8] = np.bitwise_count(bits[rows, None] ^ bits[before]).astype(np.int8)
        return -differ

    value, row = _nearest_before(len(hashes), likeness)
    return Nearest(-value, row)


def _nearest_before(count: int, likeness: Callable[[slice, slice], npt.NDArray[np.number]]) -> Nearest:
    """For each row the largest likeness to a row before it.

    Args:
        count: Rows.
        likeness: Of some rows and some others, (rows, others); above -100.
    """
    value, row = np.full(count, -100.0), np.full(count, -1)
    for rows in _tiles(count):
        for before in _tiles(rows.stop):
            likenesses = likeness(rows, before)
            if before == rows:  # the only tile with rows that come later
                np.copyto(likenesses, -100, where=~np.tri(len(likenesses), k=-1, dtype=bool))
            best = likenesses.argmax(axis=1)  # the first of several, and a later tile must be better
            best_value = np.take_along_axis(likenesses, best[:, None], axis=1)[:, 0]
            better = best_value > value[rows]
            value[rows] = np.where(better, best_value, value[rows])
            row[rows] = np.where(better, best + before.start, row[rows])
    return Nearest(value, row)


def _tiles(count: int) -> list[slice]:
    return [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]
