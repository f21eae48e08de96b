"""Near-duplicates: the most similar higher-ranked image of an image's group, by embedding and by perceptual hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import field_validator

from core.errors import UserError
from core.stages import GroupedStage
from manifests.embeddings import is_embedding, to_matrix
from manifests.priorities import priority
from manifests.schemas import ERROR, column

TILE = 1024
"""Rows per tile: a tile compares as many rows with as many others: 1024² numbers of 8 bytes, and temporary arrays."""

FIRST_SIMILARITY, FIRST_DISTANCE = -1.0, 64
"""The values of a group's first row, which has no higher-ranked row; they pass every threshold."""

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
            "Largest cosine similarity to an earlier image of the group; -1 without one",
            -1,
            1,
            reference_column="duplicate_of",
        ),
        column("duplicate_of", pa.int64(), "Id of that image; null without one", nominal=True),
    ),
    "perceptual": (
        column(
            "phash_distance",
            pa.int32(),
            "Smallest number of bits by which phash differs from an earlier image of the group; 64 without one",
            0,
            64,
            reference_column="phash_duplicate_of",
        ),
        column("phash_duplicate_of", pa.int64(), "Id of that image; null without one", nominal=True),
    ),
}


class Duplicates(GroupedStage):
    """The similarity of each image to the most similar one that ranks before it in its group, and the id of that one.

    This is the single pass of SemDeDup (Abbas et al. 2023, arXiv 2303.09540): compare only within clusters, order the
    rows of a cluster, store each row's maximum over the rows before it. Any threshold is then a rule over a stored
    column: `max_duplicate_similarity: 0.95`, `min_phash_distance: 11`. SemDeDup orders rows by the distance to the
    centroid. Here the better copy ranks first: more pixels, then more bytes (unknown last), then a hash of the id, then
    the id.

    `benchmarks/duplicates.py` measures thresholds. A phash distance of at most 10 bits (`min_phash_distance: 11`) finds
    copies that were compressed again, scaled, or cropped by 2 % on each side; it finds no mirrored copies. A cosine
    finds what the encoder considers similar: with `conse` also different things of one class. In a larger group, more
    rows are near another one by chance.

    The first row of a group has the similarity -1 and the distance 64. A row without a phash (an image without
    structure, which has no copies) has the distance 64 too. These values pass every rule; null would not. The reference
    columns `duplicate_of` and `phash_duplicate_of` are null there.

    In a chain of copies, each similar only to the one before, rules drop all but the first, also those that differ from
    the first. Pairs in different groups are not compared. A copy that was cropped or recoloured may lie across the
    border of two clusters: `border_duplicates` (clustering/borders.py) compares images that lie between the same two
    clusters, and `within` can name a coarser level (`cluster_2`), at the cost of more pairs.

    The work of a group grows with the square of its rows. Memory holds the input table, the vectors of the largest
    group in float32, and some arrays of 1024 × 1024 numbers.

    With `semantic`, a row without a usable embedding is an error; a row without a group is always one. Other rows are
    not compared with such rows.

    Attributes:
        within: The column that holds the groups.
        by: `semantic` (cosines of `image_embedding`), `perceptual` (`phash`), or both, the default.
    """

    name: ClassVar = "duplicates"

    within: str = "cluster"
    by: tuple[Method, ...] = ("semantic", "perceptual")

    @field_validator("by")
    @classmethod
    def _in_order(cls, by: tuple[Method, ...]) -> tuple[Method, ...]:
        """Return each method once and in a fixed order, so that equal settings have the same fingerprint."""
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
        """Compare the rows of one group, given in rank order; store the results in `result`."""
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
    """The nearest row of each row among the rows before it.

    Attributes:
        value: Its similarity (largest) or distance (smallest), (rows).
        row: Its position, the earliest of several, (rows); -1: there is none.
    """

    value: Floats
    row: Ints


class _Result:
    """The output columns while they are filled."""

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
    """Return the groups' names, and for each row the position of its group's name; len(names) for rows of no group."""
    encoded = groups.combine_chunks().dictionary_encode()
    return encoded.dictionary, encoded.indices.fill_null(len(encoded.dictionary)).to_numpy().astype(np.int64)


def _groups(table: pa.Table, codes: Ints) -> Iterator[Ints]:
    """Yield the rows of each group in rank order."""
    ids = table["id"].to_numpy()
    width, height, size = (
        table[name].cast(pa.int64()).fill_null(0).to_numpy() for name in ("width", "height", "bytes")
    )
    order = np.lexsort((ids, priority(ids, 0), -size, -width * height, codes))
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _take(column: pa.ChunkedArray, rows: Ints) -> pa.Array:
    """Return some rows of a column. pyarrow's `take` would concatenate all chunks first, again for each group."""
    order = np.argsort(rows)
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    parts = np.split(rows[order], np.searchsorted(rows[order], ends[:-1]))
    starts = [0, *ends[:-1]]
    taken = [c.take(pa.array(part - at)) for c, part, at in zip(column.chunks, parts, starts, strict=True) if len(part)]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(taken).take(pa.array(back)) if taken else column.slice(0, 0).combine_chunks()


def _most_similar(vectors: npt.NDArray[np.float32]) -> Nearest:
    """Find the largest cosine of each row to the rows before it, -1 to 1.

    The result is the same to the last bit for any shape of the products and any order of their sums: numbers that were
    float16 are multiples of 2⁻²⁴, so their products are multiples of 2⁻⁴⁸, and sums of these below 2 (vectors of length
    1) fit into the 53 bits of float64. So no sum is rounded. The later steps are one operation per number.
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
    """Find the smallest Hamming distance of each hash to the hashes before it, 0 to 64."""
    bits = hashes.view(np.uint64)  # for signed numbers, NumPy counts the bits of the absolute value

    def likeness(rows: slice, before: slice) -> npt.NDArray[np.int8]:
        differ: npt.NDArray[np.int8] = np.bitwise_count(bits[rows, None] ^ bits[before]).astype(np.int8)
        return -differ

    value, row = _nearest_before(len(hashes), likeness)
    return Nearest(-value, row)


def _nearest_before(count: int, likeness: Callable[[slice, slice], npt.NDArray[np.number]]) -> Nearest:
    """Find the largest likeness of each row to a row before it.

    Args:
        count: Number of rows.
        likeness: Computes the likenesses of two slices of rows, (rows, others); above -100.
    """
    value, row = np.full(count, -100.0), np.full(count, -1)
    for rows in _tiles(count):
        for before in _tiles(rows.stop):
            likenesses = likeness(rows, before)
            if before == rows:  # the only tile with rows that come later
                np.copyto(likenesses, -100, where=~np.tri(len(likenesses), k=-1, dtype=bool))
            best = likenesses.argmax(axis=1)  # ties: the first row; a later tile must be strictly better
            best_value = np.take_along_axis(likenesses, best[:, None], axis=1)[:, 0]
            better = best_value > value[rows]
            value[rows] = np.where(better, best_value, value[rows])
            row[rows] = np.where(better, best + before.start, row[rows])
    return Nearest(value, row)


def _tiles(count: int) -> list[slice]:
    return [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]
