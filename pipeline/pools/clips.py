"""The clips of a run of films: a pool whose rows are pieces of films.

The run of films says where cuts may be (its stage `scenes`), the settings of the pool say which of them count. So other
settings make other clips without decoding a film again, and a clip that stays the same keeps its id and its facts.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, SerializeAsAny

from core.errors import UserError
from core.film_pieces import Piece, PieceSettings, pieces
from core.films import FilmFile
from manifests.run import Run, open_run
from manifests.schemas import CLIP_INDEX, FILM_INDEX
from manifests.storage import Folder
from manifests.table_walk import walk
from manifests.tables import Table
from pipeline.pools.base import Pool, image_id, index_table
from pipeline.pools.images import Failure, Group
from pipeline.pools.listing import Shard, shards_of
from pipeline.pools.rows import Row

CUTS = ("length", "cut_times", "cut_scores", "key_times")
"""The columns of the stage `scenes` that say where a film may be cut, in the order of `core.film_pieces.pieces`."""

_OF_FILM = [name for name in FILM_INDEX.names if name not in ("id", "key", "duration", "frame_count", "error", "retry")]
_MARK_BYTES = 4


class Clips(PieceSettings, Pool):
    """The clips of a run of films.

    Attributes:
        where: The run of films.
        films: Its pool.
    """

    noun: ClassVar = "clip"
    has_images: ClassVar = False
    has_films: ClassVar = True
    bytes_are_work: ClassVar = False
    changeable: ClassVar = frozenset(PieceSettings.model_fields)
    index_schema: ClassVar = CLIP_INDEX

    films: SerializeAsAny[Pool] = Field(exclude=True)

    def root(self) -> Folder:
        """Return the folder of the films."""
        return self.films.root()

    def shards(self, root: Folder, passed_over: Counter[str]) -> Iterator[Shard]:
        """Yield a shard per film. Its `bytes` are a mark of its pieces; one without clips has a `problem`."""
        run = open_run(self.where)
        names = ["shard", "key", "status", "drop_stage", "drop_reason"]
        films = run.manifest(names).select("id", *names).collect(engine="streaming")
        cuts = cut_table(run)
        fates = {id_: fate for id_, *_, fate in films.select("id", _fate()).iter_rows()}
        marks = {id_: self._mark(id_, cuts_of) for id_, cuts_of in _cuts(cuts, fates)}
        seen: set[str] = set()
        for id_, shard, key in films.select("id", "shard", "key").iter_rows():
            path = film_path(shard, key)
            path = path if path not in seen else f"{path}//{id_}"  # a tar may have a name twice
            seen.add(path)
            problem = fates[id_] or (None if id_ in marks else "no clips: the stage scenes has not computed its film")
            yield Shard(path, _hash(problem) if problem else marks[id_], problem)

    def index(self, root: Folder, shards: pa.Table, passed_over: Counter[str] | None = None) -> pa.Table:
        run, listed = open_run(self.where), list(shards_of(shards))
        films = _films(run, [shard.path for shard in listed if not shard.problem])
        cuts = dict(_cuts(cut_table(run), {film["id"]: None for film in films.values()}))
        rows: list[Row] = []
        for shard in listed:
            film = films.get(shard.path)
            if shard.problem or film is None or film["id"] not in cuts:
                rows.append(_without_clips(shard, shard.problem or "no clips: its film is not in the run of films now"))
                continue
            rows += [_clip_row(film, piece, shard) for piece in self._pieces(cuts[film["id"]])]
        return index_table(rows, self.index_schema)

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        return [Failure("a clip: it has frames, and no image")] * len(group.rows)

    def film(self, root: Folder, shard: str, key: str, offset: int, length: int | None) -> FilmFile:
        path, _, member = shard.partition("//")
        return self.films.film(root, path, member.partition("//")[0] or path, offset, length)

    @property
    def settings(self) -> PieceSettings:
        """Which cuts count."""
        return PieceSettings(**{name: getattr(self, name) for name in PieceSettings.model_fields})

    def _pieces(self, cuts: Sequence[Any]) -> Sequence[Piece]:
        length, times, scores, keys = cuts
        return pieces(length, times, scores, keys, self.settings)

    def _mark(self, film: int, cuts: Sequence[Any]) -> int:
        return _hash([film, *([piece.scene_start, piece.scene_end, *_span(piece)] for piece in self._pieces(cuts))])


def cut_table(run: Run) -> Table:
    """Return the table of the stage that says where films may be cut.

    Raises:
        UserError: The run has none.
    """
    for stage in run.stages:
        if set(CUTS) <= set(stage.table.schema.names):
            return stage.table
    raise UserError(f"clips: {run.url} has no cuts: add the stage `scenes` to its recipe, and run it")


def film_path(shard: str, key: str) -> str:
    """Return the path of a film as a shard: that of its file, and its name in the file behind `//`."""
    return shard if key == shard else f"{shard}//{key}"


def _fate() -> pl.Expr:
    """Why a film has no clips; null: it is kept."""
    reason = pl.concat_str(
        pl.lit("no clips: film "), "status", pl.lit(" at "), "drop_stage", pl.lit(": "), "drop_reason"
    )
    return pl.when(pl.col("status") != "kept").then(reason).alias("fate")


def _cuts(table: Table, fates: Mapping[int, str | None]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield the id of each film that is kept, and the columns `CUTS`."""
    kept = pa.array([id_ for id_, fate in fates.items() if fate is None], pa.int64())
    for _, whole in walk(table, ["id", *CUTS, "error"])[1]:
        part = whole.filter(pc.is_in(whole["id"], kept))  # a part has the cuts of many films
        for id_, error, *cuts in zip(*(part[name].to_pylist() for name in ("id", "error", *CUTS)), strict=True):
            if error is None:
                yield id_, cuts


def _films(run: Run, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of films in the index, by their path as a shard."""
    wanted = set(paths)
    scan = run.index.scan(["id", "key", *_OF_FILM]).filter(
        pl.col("shard").is_in(sorted({path.partition("//")[0] for path in wanted}))
    )
    rows: dict[str, dict[str, Any]] = {}
    for row in scan.sort("id").collect(engine="streaming").iter_rows(named=True):
        path = film_path(row["shard"], row["key"])
        rows[path if path not in rows else f"{path}//{row['id']}"] = row
    return {path: row for path, row in rows.items() if path in wanted}


def _clip_row(film: Mapping[str, Any], piece: Piece, shard: Shard) -> Row:
    start, end = _span(piece)
    of_film = {name: film[name] for name in _OF_FILM}
    key, scene = f"{start:.3f}-{end:.3f}", f"{piece.scene_start:.3f}-{piece.scene_end:.3f}"
    return {
        **of_film,
        # What a clip leaves out of its scene is a fact of the clip too: out of another scene it is another clip.
        "id": image_id(str(film["id"]), key if key == scene else f"{key} of {scene}"),
        "shard": shard.path,
        "shard_bytes": shard.bytes,
        "key": key,
        "duration": round(end - start, 3),
        "film_id": film["id"],
        "start": start,
        "end": end,
        "scene_start": piece.scene_start,
        "scene_end": piece.scene_end,
        "retry": False,
    }


def _without_clips(shard: Shard, problem: str) -> Row:
    """Return the only row of a film that has no clips."""
    return {
        "id": image_id(shard.path, "no clips"),
        "shard": shard.path,
        "shard_bytes": shard.bytes,
        "key": shard.path,
        "error": problem,
        "retry": False,
    }


def _span(piece: Piece) -> tuple[float, float]:
    return round(piece.start, 3), round(piece.end, 3)


def _hash(value: object) -> int:
    digest = hashlib.blake2b(json.dumps(value).encode(), digest_size=_MARK_BYTES).digest()
    return int.from_bytes(digest, "big")
