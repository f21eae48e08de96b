"""Near-duplicates: against a double loop, the same bits in any shape, who stays, and copies of real photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import duplicates as planted
from clustering import duplicates
from clustering.duplicates import Duplicates
from manifests.embeddings import embedding_column, from_matrix
from manifests.priorities import priority
from manifests.rules import Rule
from manifests.schemas import bounds, column, reference_column_of

Row = dict[str, Any]


def table_of(vectors: object, phash: Sequence[int | None] | None = None, **columns: Sequence[int | None]) -> pa.Table:
    """One group of images of one size, unless `columns` say otherwise."""
    embeddings, _ = from_matrix(np.asarray(vectors, np.float32))
    rows = len(embeddings)
    same = {name: [value] * rows for name, value in (("width", 10), ("height", 10), ("bytes", 99), ("cluster", 0))}
    arrays = {name: pa.array(v, pa.int64()) for name, v in {"id": range(rows), **same, **columns}.items()}
    return pa.table({**arrays, "image_embedding": embeddings, "phash": pa.array(phash or [None] * rows, pa.int64())})


def duplicates_of(table: pa.Table, **settings: Any) -> dict[int, Row]:
    """What the stage says of each id."""
    stage = Duplicates(**settings)
    facts = stage(table.select(list(stage.reads)))
    assert facts.schema.remove(facts.schema.get_field_index("error")).equals(stage.writes, check_metadata=True)
    return dict(zip(table["id"].to_pylist(), facts.to_pylist(), strict=True))


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 40), tile=st.integers(1, 9))
def test_duplicates_equal_those_of_two_plain_loops(seed: int, rows: int, tile: int) -> None:
    table = random_table(np.random.default_rng(seed), rows)
    with mock.patch.object(duplicates, "TILE", tile):
        assert duplicates_of(table) == by_two_loops(table)


def random_table(dice: np.random.Generator, rows: int) -> pa.Table:
    """Few groups, directions, sizes and hashes, so that there are copies, chains and ties; and some of all is null."""
    directions = dice.standard_normal((6, 16)) + 1
    vectors = directions[dice.integers(0, 6, rows)] + dice.choice([0, 0.001, 0.3], (rows, 1)) * dice.standard_normal(16)
    vectors[dice.random(rows) < 0.1] = 0  # becomes null
    base = dice.integers(-(2**63), 2**63 - 1, 4)
    flipped = np.int64(1) << dice.integers(0, 63, rows)

    def often_null(values: npt.NDArray[np.int64]) -> list[int | None]:
        return [None if dice.random() < 0.1 else value for value in values.tolist()]

    return table_of(
        vectors.reshape(rows, 16),
        often_null(base[dice.integers(0, 4, rows)] ^ flipped),
        id=dice.permutation(rows).tolist(),
        width=dice.integers(1, 4, rows).tolist(),
        height=dice.integers(1, 4, rows).tolist(),
        bytes=often_null(dice.integers(1, 3, rows)),
        cluster=often_null(dice.integers(0, 4, rows)),
    )


def by_two_loops(table: pa.Table) -> dict[int, Row]:
    ids = table["id"].to_numpy()
    hashes = dict(zip(ids.tolist(), priority(ids, 0).tolist(), strict=True))
    rows = table.to_pylist()
    rows.sort(key=lambda r: (-r["width"] * r["height"], -(r["bytes"] or 0), hashes[r["id"]], r["id"]))
    facts: dict[int, Row] = {}
    for position, row in enumerate(rows):
        fact = dict.fromkeys([*Duplicates().writes.names, "error"])
        facts[row["id"]] = fact
        if row["cluster"] is None:
            fact["error"] = "no group: nothing is stored in cluster"
            continue
        if row["image_embedding"] is None:
            fact["error"] = "no embedding: nothing is stored"
            continue
        fact |= {"duplicate_similarity": -1.0, "phash_distance": 64}
        best = -2.0
        for other in rows[:position]:
            if other["cluster"] != row["cluster"] or other["image_embedding"] is None:
                continue
            cosine = cosine_of(row["image_embedding"], other["image_embedding"])
            if cosine > best:
                best = cosine
                rounded = float(np.float32(min(1, max(-1, cosine))))
                fact |= {"duplicate_similarity": rounded, "duplicate_of": other["id"]}
            if row["phash"] is None or other["phash"] is None:
                continue
            distance = ((row["phash"] ^ other["phash"]) % 2**64).bit_count()
            if distance < fact["phash_distance"] or fact["phash_duplicate_of"] is None:
                fact |= {"phash_distance": distance, "phash_duplicate_of": other["id"]}
    return facts


def cosine_of(one: Sequence[float], other: Sequence[float]) -> float:
    """Without any rounding of the sums."""
    products = math.fsum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    lengths = (math.sqrt(math.fsum(float(a) ** 2 for a in vector)) for vector in (one, other))
    return products / next(lengths) / next(lengths)


@pytest.mark.parametrize("tile", [64, 100])
def test_result_does_not_depend_on_order_tiles_or_calls(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(1)
    rows = 600
    centres = dice.standard_normal((20, 384))
    vectors = centres[dice.integers(0, 20, rows)] + 0.05 * dice.standard_normal((rows, 384))  # close calls
    table = table_of(vectors, dice.integers(0, 2**62, rows).tolist(), cluster=dice.integers(0, 3, rows).tolist())
    expected = duplicates_of(table)
    monkeypatch.setattr(duplicates, "TILE", tile)
    shuffled = table.take(pa.array(dice.permutation(rows)))
    assert duplicates_of(shuffled) == expected
    assert duplicates_of(pa.concat_tables([shuffled.slice(start, 7) for start in range(0, rows, 7)])) == expected
    alone: dict[int, Row] = {}
    for group in range(3):
        alone |= duplicates_of(table.filter(pa.compute.equal(table["cluster"], group)))
    assert alone == expected


COPIES = [[1, 0], [1, 0]]


def test_larger_image_is_kept() -> None:
    facts = duplicates_of(table_of(COPIES, [7, 7], width=[10, 11]))
    assert facts[1]["duplicate_of"] is None
    assert facts[0]["duplicate_of"] == facts[0]["phash_duplicate_of"] == 1


def test_among_equal_sizes_more_bytes_then_smaller_hash_is_kept() -> None:
    assert duplicates_of(table_of(COPIES, bytes=[98, 99]))[0]["duplicate_of"] == 1
    assert duplicates_of(table_of(COPIES, bytes=[None, 1]))[0]["duplicate_of"] == 1
    # Many pairs: by the order of the ids alone half of them would be wrong.
    for first in range(0, 40, 2):
        ids = [first, first + 1]
        stays, goes = (ids[position] for position in np.argsort(priority(np.array(ids), 0)))
        assert duplicates_of(table_of(COPIES, id=ids))[goes]["duplicate_of"] == stays


def test_exact_copies_have_similarity_one_and_distance_zero() -> None:
    vector = np.random.default_rng(0).standard_normal(512)
    facts = duplicates_of(table_of([vector] * 5, [-3] * 5))
    first = [number for number, fact in facts.items() if fact["duplicate_of"] is None]
    assert len(first) == 1
    copies = [fact for number, fact in facts.items() if number not in first]
    wanted = {"duplicate_similarity": 1, "duplicate_of": first[0], "phash_distance": 0, "phash_duplicate_of": first[0]}
    assert copies == [{**wanted, "error": None}] * 4


def test_first_ranked_image_of_a_group_passes_every_rule() -> None:
    facts = pl.DataFrame(list(duplicates_of(table_of([*COPIES, [1, 0]], [7, 7, None], cluster=[0, 0, 1])).values()))
    for rule in (Rule("max", "duplicate_similarity", 0.95), Rule("min", "phash_distance", 5)):
        assert rule.passes(facts).sum() == 2, "one of the copies, and the image that is alone"
    for field in Duplicates().writes:
        if not field.name.endswith("_of"):
            low, high = bounds(field)
            assert facts[field.name].is_between(low, high).all()


def test_image_without_structure_is_not_a_phash_duplicate() -> None:
    facts = duplicates_of(table_of(COPIES, [None, None]))
    assert [fact["phash_distance"] for fact in facts.values()] == [64, 64]
    assert [fact["phash_duplicate_of"] for fact in facts.values()] == [None, None]


def test_all_the_bits_of_a_negative_hash_count() -> None:
    facts = duplicates_of(table_of(COPIES, [-1, 1], width=[11, 10]))
    assert facts[1]["phash_distance"] == 63


def test_broken_embedding_is_an_error_and_is_not_compared() -> None:
    table = table_of([[1, 0], [1, 0], [0.6, 0.8]], [7, 7, 7], width=[12, 11, 10])
    halves = np.array([[0.5, 0], [1, 0], [0.6, 0.8]], np.float16)
    short = pa.FixedSizeListArray.from_arrays(pa.array(halves.ravel()), 2)
    facts = duplicates_of(table.set_column(table.column_names.index("image_embedding"), "image_embedding", short))
    assert facts[0] == {**dict.fromkeys(facts[0]), "error": "broken embedding: length 0.5 instead of 1"}
    assert facts[1]["duplicate_of"] is facts[1]["phash_duplicate_of"] is None
    assert facts[2]["duplicate_of"] == facts[2]["phash_duplicate_of"] == 1
    assert facts[2]["duplicate_similarity"] == pytest.approx(0.6, abs=1e-3)


def test_row_without_a_group_is_an_error() -> None:
    facts = duplicates_of(table_of(COPIES, [7, 7], cluster=[None, None]))
    assert [fact["error"] for fact in facts.values()] == ["no group: nothing is stored in cluster"] * 2
    assert facts[0]["phash_distance"] is None


def test_image_of_a_chain_duplicates_the_image_before_it() -> None:
    angles = np.radians([0, 10, 20])
    facts = duplicates_of(table_of(np.stack([np.cos(angles), np.sin(angles)], axis=1), width=[12, 11, 10]))
    assert [fact["duplicate_of"] for fact in facts.values()] == [None, 0, 1]
    assert facts[2]["duplicate_similarity"] == pytest.approx(math.cos(math.radians(10)), abs=1e-3)


def test_groups_by_a_column_of_names_are_compared_within() -> None:
    table = table_of([[1, 0]] * 4, width=[10, 11, 12, 13]).append_column("source", pa.array(["a", "b", "a", "b"]))
    facts = duplicates_of(table, within="source")
    assert [facts[number]["duplicate_of"] for number in range(4)] == [2, 3, None, None]


def test_columns_read_and_written_follow_the_method() -> None:
    semantic, perceptual = Duplicates(by=("semantic",)), Duplicates(by=("perceptual",))
    assert semantic.reads == ("id", "width", "height", "bytes", "cluster", "image_embedding")
    assert reference_column_of(semantic.writes.field("duplicate_similarity")) == "duplicate_of"
    assert perceptual.reads == ("id", "width", "height", "bytes", "cluster", "phash")
    assert perceptual.writes.names == ["phash_distance", "phash_duplicate_of"]
    assert reference_column_of(perceptual.writes.field("phash_distance")) == "phash_duplicate_of"
    assert Duplicates(within="phash").reads.count("phash") == 1
    assert duplicates_of(table_of(COPIES, [7, 7]), by=("perceptual",))[0].keys() == {*perceptual.writes.names, "error"}


def test_equivalent_settings_have_one_fingerprint() -> None:
    assert Duplicates(by=("perceptual", "semantic", "semantic")).model_dump() == Duplicates().model_dump()
    with pytest.raises(ValueError, match="name `semantic`, `perceptual` or both"):
        Duplicates(by=())


def test_columns_that_cannot_be_compared_are_refused() -> None:
    fields = {name: column(name, pa.int64(), "") for name in Duplicates().reads}
    fields["image_embedding"] = embedding_column("image_embedding", 8, "a", "")
    Duplicates().validate_inputs(fields)
    with pytest.raises(ValueError, match="integers or strings"):
        Duplicates().validate_inputs({**fields, "cluster": column("cluster", pa.float32(), "")})
    with pytest.raises(ValueError, match="not a fixed-size list of float16"):
        Duplicates().validate_inputs({**fields, "image_embedding": column("x", pa.list_(pa.float32(), 8), "")})


def test_only_planted_copies_are_duplicates(photographs: list[Path]) -> None:
    """`benchmarks/duplicates.py` does this for the whole demo, by the encoder too."""
    names, encoded = [file.name for file in photographs], [file.read_bytes() for file in photographs]
    originals = planted.facts_of(encoded)
    for kind, change in planted.PLANTED.items():
        copies = planted.facts_of([change(data) for data in encoded])
        (share,) = planted.recall(originals, copies, names, [planted.RECOMMENDED])
        assert share >= 0.95, kind
    _, (pairs,) = planted.marked(originals, [planted.RECOMMENDED])
    assert {frozenset((names[a], names[b])) for a, b in pairs} == {
        frozenset({"motorcycle_left.png", "motorcycle_right.png"})  # a stereo pair
    }
    pieces, sources = planted.ninths(photographs)
    _, (pairs,) = planted.marked(planted.facts_of(pieces), [planted.RECOMMENDED])
    wrong = {a for a, b in pairs if sources[a] != sources[b]}
    assert len(wrong) <= 0.01 * len(pieces)
