"""What became of the seconds of films: how many are in kept clips, and where the others went.

The pieces of a film are the whole film, so the seconds of all fates add up to its length. A film without clips has one
fate, that of the film.
"""

from __future__ import annotations

import polars as pl

from manifests.run import Run

KEPT, TRIMMED = "kept", "trimmed"
"""Fates beside those of dropped clips, which are called like the stage that dropped them: seconds in kept clips, and
seconds that were taken off the ends of clips."""

OF_FILM = "film "
"""How the fates of films without clips begin: `film dropped`, `film error`, `film pending`, `film kept`."""

_OF_CLIPS = ("film_id", "start", "end", "scene_start", "scene_end", "status", "drop_stage")
_OF_FILMS = ("duration", "status", "drop_stage", "drop_reason")
_LENGTH = "length"  # that of the decoded film, which the stage with the cuts writes; `duration` is that of its header


def clip_seconds(clips: Run, films: Run, by_film: bool = False) -> pl.DataFrame:
    """Return the seconds of films by fate, longest first; with `by_film`, for each film.

    Args:
        clips: The run of clips.
        films: The run of their films.
        by_film: Whether there is a row for each film and fate. Each film has at least one.

    Returns:
        Columns `fate`, `clips` (number of clips; 0 for `trimmed` and for films without clips) and `seconds`. With
        `by_film` also `film_id` and `reason`: the stage and the rule or the error of a film without clips, and null for
        clips. Else also `films`, the number of films, and `unknown`, how many of them have no known length: `seconds`
        does not hold theirs. `seconds` is null if no film of the fate has a known length. Fates are `kept`, `trimmed`,
        `pending`, the stage at which clips were dropped or failed, and those of films without clips (`OF_FILM`).
    """
    of_clips = _fates_of_clips(clips)
    rows = pl.concat([of_clips, _fates_of_films(films, of_clips)], how="diagonal")
    keys = ["film_id", "fate"] if by_film else ["fate"]
    films_of = [pl.col("film_id").n_unique().alias("films"), pl.col("seconds").null_count().alias("unknown")]
    known = pl.when(pl.col("seconds").count() > 0).then(pl.col("seconds").sum()).alias("seconds")
    summed = rows.group_by(keys).agg(
        pl.col("clips").sum(), known, *([pl.col("reason").first()] if by_film else films_of)
    )
    order = ["film_id", "seconds"] if by_film else ["seconds"]
    columns = (
        ["film_id", "fate", "clips", "seconds", "reason"]
        if by_film
        else ["fate", "films", "clips", "seconds", "unknown"]
    )
    return summed.select(columns).sort(*order, descending=[name == "seconds" for name in order], nulls_last=True)


def _fates_of_clips(clips: Run) -> pl.DataFrame:
    """Return the seconds of each film with clips by fate: `film_id`, `fate`, `clips`, `seconds`."""
    rows = clips.manifest(list(_OF_CLIPS)).filter(pl.col("film_id").is_not_null())
    waiting = pl.when(pl.col("status") == "pending").then(pl.lit("pending")).otherwise(pl.col("drop_stage"))
    fate = pl.when(pl.col("status") == KEPT).then(pl.lit(KEPT)).otherwise(waiting)
    used = pl.col("end") - pl.col("start")
    whole = pl.col("scene_end") - pl.col("scene_start")
    in_clips = rows.select("film_id", fate=fate, clips=pl.lit(1, pl.Int64), seconds=used)
    trimmed = rows.select("film_id", fate=pl.lit(TRIMMED), clips=pl.lit(0, pl.Int64), seconds=whole - used)
    summed = pl.concat([in_clips, trimmed]).group_by("film_id", "fate").agg(pl.col("clips", "seconds").sum())
    return summed.filter((pl.col("clips") > 0) | (pl.col("seconds") > 1e-6)).collect(engine="streaming")


def _fates_of_films(films: Run, of_clips: pl.DataFrame) -> pl.DataFrame:
    """Return the films without clips: `film_id`, `fate`, `clips` (0), `seconds`, `reason`."""
    lengths = [_LENGTH] if any(_LENGTH in stage.table.schema.names for stage in films.stages) else []
    rows = films.manifest([*_OF_FILMS, *lengths]).join(of_clips.lazy(), left_on="id", right_on="film_id", how="anti")
    reason = pl.concat_str("drop_stage", pl.lit(": "), "drop_reason").fill_null("no clips")
    return rows.select(
        film_id="id",
        fate=OF_FILM + pl.col("status"),
        clips=pl.lit(0, pl.Int64),
        seconds=pl.coalesce(*lengths, "duration").cast(pl.Float64),
        reason=reason,
    ).collect(engine="streaming")
