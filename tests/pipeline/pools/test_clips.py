"""Ids of clips: the same id means the same facts."""

from __future__ import annotations

from core.film_pieces import Piece
from manifests.schemas import FILM_INDEX
from pipeline.pools.clips import _clip_row
from pipeline.pools.listing import Shard

FILM = {**dict.fromkeys(FILM_INDEX.names), "id": 7, "shard": "a.mp4", "key": "a.mp4"}


def clip_id(scene_start: float, scene_end: float, start: float, end: float) -> int:
    return int(_clip_row(FILM, Piece(scene_start, scene_end, start, end), Shard("a.mp4", 1))["id"])


def test_clip_of_another_scene_is_another_clip() -> None:
    """Both show 0 to 8 s. One leaves out a second of its scene, so its fact `trimmed` is another one."""
    whole, part = clip_id(0, 8, 0, 8), clip_id(0, 9, 0, 8)
    assert whole != part
    assert part != clip_id(0, 10, 0, 8)
    assert (whole, part) == (clip_id(0, 8, 0, 8), clip_id(0, 9, 0, 8))
    assert len({whole, part, clip_id(0, 8, 0, 7), clip_id(0, 8, 1, 8)}) == 4
