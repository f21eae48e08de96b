"""Near-duplicates: for each image the most similar one that ranks before it in its group.

Images are compared by embedding (`semantic`), by perceptual hash (`perceptual`), or by both.
"""

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
"""Rows per tile. Tiles are compared in pairs, so that one array of results has 1024² numbers of 8 bytes."""

NO_SIMILARITY, NO_DISTANCE = -1.0, 64
"""The values of a group's first row, with no row before it. They pass every threshold."""

Method = Literal["semantic", "perceptual"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_NO_GROUP = -1  # code of rows without a group
_INPUT_COLUMN: Mapping[str, str] = {"semantic": "image_embedding", "perceptual": "phash"}
_RANK_COLUMNS = ("id", "width", "height", "bytes")
_OUTPUT_FIELDS: Mapping[str, Sequence[pa.Field]] = {
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

    The better copy ranks first: more pixels, then more bytes (unknown last), then a hash of the id, then the id.

    This is the single pass of SemDeDup (Abbas et al. 2023, arXiv 2303.09540): compare only within clusters, order the
    rows of a cluster, store each row's maximum over the rows before it. Any threshold is then a rule over a stored
    column: `max_duplicate_similarity: 0.95`, `min_phash_distance: 11`. SemDeDup itself orders rows by the distance to
    the centroid.

    `benchmarks/duplicates.py` measures thresholds. A phash distance of at most 10 bits (`min_phash_distance: 11`) finds
    copies that were compressed again, scaled, or cropped by 2 % on each side; it finds no mirrored copies. A cosine
    finds what the encoder considers similar: with `conse` also different things of one class. The larger a group, the
    more rows are similar by chance.

    The first row of a group has the similarity -1 and the distance 64. A row without a phash (an image without
    structure, which has no copies) has the distance 64 too. These values pass every rule; null would not. The reference
    columns `duplicate_of` and `phash_duplicate_of` are null there.

    In a chain of copies, each similar only to the one before, rules drop all but the first, also those that differ from
    the first. Images of different groups are not compared, though a cropped or recoloured copy may be in the next
    cluster. `border_duplicates` (clustering/borders.py) compares images that lie between the same two clusters. Or
    `within` names a coarser level (`cluster_2`), at the cost of more pairs.

    The work of a group grows with the square of its rows. Memory holds the input table, the vectors of the largest
    group in float32, and some arrays of 1024 × 1024 numbers.

    A row without a group is an error, with `semantic` also one without a usable embedding. Such rows are not compared.

    Attributes:
        within: The column that holds the groups.
        by: `semantic` (cosines of `image_embedding`), `perceptual` (`phash`), or both, the default.
    """

    name: ClassVar = "duplicates"
    driver_rows: ClassVar = 10_000

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
        return tuple(dict.fromkeys([*_RANK_COLUMNS, self.within, *(_INPUT_COLUMN[method] for method in self.by)]))

    @property
    def writes(self) -> pa.Schema:
        return pa.schema([field for method in self.by for field in _OUTPUT_FIELDS[method]])

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
        codes = _group_codes(table[self.within])
        result.errors[codes == _NO_GROUP] = f"no group: nothing is stored in {self.within}"
        for rows in _ranked_groups(table, codes):
            if codes[rows[0]] != _NO_GROUP:
                self._compare(table, rows, result)
        return result.table(self.writes)

    def _compare(self, table: pa.Table, rows: Ints, result: _Result) -> None:
        """Compare the rows of one group, given in rank order; store the results in `result`."""
        if "semantic" in self.by:
            vectors, errors = to_matrix(_take(table["image_embedding"], rows))
            good = np.array([error is None for error in errors], bool)
            result.errors[rows] = errors
            rows = rows[good]
            result.store("semantic", rows, _most_similar_before(vectors if good.all() else vectors[good]))
        if "perceptual" in self.by:
            hashes = _take(table["phash"], rows)
            rows = rows[hashes.is_valid().to_numpy(zero_copy_only=False)]
            result.store("perceptual", rows, _least_different_before(hashes.drop_null().to_numpy()))


class Nearest(NamedTuple):
    """For each of n rows, the nearest of the rows before it.

    Attributes:
        values: Its similarity or distance, (n,).
        rows: Its position among the n rows, the earliest of equally near ones; -1 if there is none; (n,).
    """

    values: Floats
    rows: Ints


class _Result:
    """The output columns while they are filled: per method the values, and the rows that they refer to."""

    def __init__(self, by: Sequence[Method], ids: Ints) -> None:
        self.ids = ids
        self.errors = np.full(len(ids), None, object)
        self.values = {
            "semantic": np.full(len(ids), NO_SIMILARITY, np.float32),
            "perceptual": np.full(len(ids), NO_DISTANCE, np.int32),
        }
        self.references = {method: np.full(len(ids), -1) for method in by}

    def store(self, method: Method, rows: Ints, nearest: Nearest) -> None:
        """Store what was computed for some rows of the table. The positions in `nearest` are positions in `rows`."""
        has_nearest = nearest.rows >= 0
        self.values[method][rows[has_nearest]] = nearest.values[has_nearest]
        self.references[method][rows[has_nearest]] = rows[nearest.rows[has_nearest]]

    def table(self, writes: pa.Schema) -> pa.Table:
        failed = np.array([error is not None for error in self.errors], bool)
        columns: list[pa.Array] = []
        for method, references in self.references.items():
            columns.append(pa.array(self.values[method], mask=failed))
            columns.append(pa.array(self.ids[references], mask=references < 0))
        return pa.table([*columns, pa.array(self.errors, ERROR.type)], schema=writes.append(ERROR))


def _group_codes(groups: pa.ChunkedArray) -> Ints:
    """Return an integer for each row, the same within a group; `_NO_GROUP` for rows without a group."""
    codes: Ints = groups.combine_chunks().dictionary_encode().indices.fill_null(_NO_GROUP).to_numpy().astype(np.int64)
    return codes


def _ranked_groups(table: pa.Table, codes: Ints) -> Iterator[Ints]:
    """Yield the rows of each group in rank order."""
    ids = table["id"].to_numpy()
    width, height, size = (
        table[name].cast(pa.int64()).fill_null(0).to_numpy() for name in ("width", "height", "bytes")
    )
    order = np.lexsort((ids, priority(ids, 0), -size, -width * height, codes))
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _take(column: pa.ChunkedArray, rows: Ints) -> pa.Array:
    """Return some rows of a column, chunk by chunk. pyarrow's `take` would concatenate all chunks for each group."""
    if not len(rows):
        return column.slice(0, 0).combine_chunks()
    order = np.argsort(rows)
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    by_chunk = np.split(rows[order], np.searchsorted(rows[order], ends[:-1]))
    parts = [
        chunk.take(pa.array(chunk_rows - start))
        for chunk, chunk_rows, start in zip(column.chunks, by_chunk, [0, *ends[:-1]], strict=True)
        if len(chunk_rows)
    ]
    return pa.concat_arrays(parts).take(pa.array(np.argsort(order)))


def _most_similar_before(vectors: npt.NDArray[np.float32]) -> Nearest:
    """Find the largest cosine of each row to the rows before it, -1 to 1.

    The result is the same to the last bit for any tile size and any order of sums, since no sum is rounded. Numbers
    that were float16 are multiples of 2⁻²⁴, so their products are multiples of 2⁻⁴⁸, and sums of these below 2 (vectors
    of length 1) fit into the 53 bits of float64.
    """
    norms = np.concatenate([_norms(vectors[rows]) for rows in _tiles(len(vectors))] or [np.empty(0)])

    def cosines(rows: slice, before: slice) -> Floats:
        products: Floats = vectors[rows].astype(np.float64) @ vectors[before].astype(np.float64).T
        products /= norms[rows, None]
        products /= norms[before]
        return products

    values, rows = _nearest_before(len(vectors), cosines)
    return Nearest(values.clip(-1, 1), rows)


def _norms(vectors: npt.NDArray[np.float32]) -> Floats:
    doubles = vectors.astype(np.float64)
    norms: Floats = np.sqrt(np.einsum("nd,nd->n", doubles, doubles))
    return norms


def _least_different_before(hashes: Ints) -> Nearest:
    """Find the smallest Hamming distance of each hash to the hashes before it, 0 to 64."""
    bits = hashes.view(np.uint64)  # for signed numbers, NumPy counts the bits of the absolute value

    def negative_distances(rows: slice, before: slice) -> npt.NDArray[np.int8]:
        distances: npt.NDArray[np.int8] = np.bitwise_count(bits[rows, None] ^ bits[before]).astype(np.int8)
        return -distances

    values, rows = _nearest_before(len(hashes), negative_distances)
    return Nearest(-values, rows)


def _nearest_before(count: int, similarities: Callable[[slice, slice], npt.NDArray[np.number]]) -> Nearest:
    """Find the most similar row before each row.

    Args:
        count: Number of rows.
        similarities: Computes the similarities of a slice of rows to another one, (rows, others). All are above -100.
    """
    values, nearest = np.full(count, -100.0), np.full(count, -1)
    for rows in _tiles(count):
        for before in _tiles(rows.stop):
            tile = similarities(rows, before)
            if before == rows:  # only here some of the others are not before the row
                np.copyto(tile, -100, where=~np.tri(len(tile), k=-1, dtype=bool))
            best = tile.argmax(axis=1)  # of equal ones the first; a later tile must be strictly better
            best_values = np.take_along_axis(tile, best[:, None], axis=1)[:, 0]
            better = best_values > values[rows]
            values[rows] = np.where(better, best_values, values[rows])
            nearest[rows] = np.where(better, best + before.start, nearest[rows])
    return Nearest(values, nearest)


def _tiles(count: int) -> list[slice]:
    """Return slices of at most `TILE` rows that cover rows 0 to count - 1."""
    return [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]
