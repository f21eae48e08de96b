"""What became of the seconds of films: how many are in kept clips, and where the others went.

The pieces of a film are the whole film, so the seconds of all fates add up to its length.
"""

from __future__ import annotations

import polars as pl

from manifests.run import Run

KEPT, TRIMMED = "kept", "trimmed"
"""Fates beside those of dropped clips, which are called like the stage that dropped them: seconds in kept clips, and
seconds that were taken off the ends of clips."""

_COLUMNS = ("film_id", "start", "end", "scene_start", "scene_end", "status", "drop_stage")


def clip_seconds(run: Run, by_film: bool = False) -> pl.DataFrame:
    """Return the seconds of films by fate, longest first; with `by_film`, for each film.

    Args:
        run: A run of clips.
        by_film: Whether there is a row for each film and fate.

    Returns:
        Columns `film_id` (with `by_film`), `fate`, `clips` (number of clips; 0 for `trimmed`) and `seconds`. Fates are
        `kept`, `trimmed`, `pending`, and the stage at which clips were dropped or failed.
    """
    rows = run.manifest(list(_COLUMNS)).filter(pl.col("film_id").is_not_null())
    waiting = pl.when(pl.col("status") == "pending").then(pl.lit("pending")).otherwise(pl.col("drop_stage"))
    fate = pl.when(pl.col("status") == KEPT).then(pl.lit(KEPT)).otherwise(waiting)
    used = pl.col("end") - pl.col("start")
    whole = pl.col("scene_end") - pl.col("scene_start")
    clips = rows.select("film_id", fate=fate, clips=pl.lit(1, pl.Int64), seconds=used)
    trimmed = rows.select("film_id", fate=pl.lit(TRIMMED), clips=pl.lit(0, pl.Int64), seconds=whole - used)
    keys = ["film_id", "fate"] if by_film else ["fate"]
    summed = pl.concat([clips, trimmed]).group_by(keys).agg(pl.col("clips", "seconds").sum())
    order = ["film_id", "seconds"] if by_film else ["seconds"]
    found = summed.filter((pl.col("clips") > 0) | (pl.col("seconds") > 1e-6))
    return found.sort(*order, descending=[False, True] if by_film else [True]).collect(engine="streaming")
