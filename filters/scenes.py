"""The possible scene cuts of a film. The pieces between them are the rows of a run of clips."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import ClassVar

import pyarrow as pa

from core.film_pieces import PieceSettings, select_cuts
from core.films import FilmFile
from core.scene_cuts import SceneCuts, find_cuts
from core.stages import FILM, ImageFacts, ImageStage
from manifests.schemas import column

_DEFAULTS = PieceSettings()


class Scenes(ImageStage):
    """Scene cuts of a film, its key frames, and how much of it can be decoded. It decodes every frame once.

    It stores every frame that may be a cut, with its score, so that a run of clips can be cut again with other
    thresholds in seconds (`core.film_pieces.PieceSettings`). Hard cuts have scores from about 4; fades and dissolves
    are not found. `core.cut_scores` has the formula: that of FFmpeg's filter `scdet`, and tests for shake and flashes.

    The default threshold, 4 with cuts at least 0.6 s apart, was chosen by comparison with PySceneDetect 0.7, whose
    detectors have F1 of 92 (Adaptive) and 87 (Content) on BBC Planet Earth by its own benchmark. `scdet`'s own default,
    10, misses many of these cuts. `benchmarks/scene_cuts.py` measures this stage beside PySceneDetect.

    A film that breaks off is an error if more than 1 s and more than a tenth of its duration cannot be decoded. Of
    others, `length` is what there is, and no piece lies behind it.
    """

    name: ClassVar = "scenes"
    reads: ClassVar = (FILM, "duration")
    writes: ClassVar = pa.schema(
        [
            column("cuts", pa.int32(), "Number of scene cuts: score 4 or more, at least 0.6 s apart", 0),
            column(
                "cut_times",
                pa.list_(pa.float64()),
                "Times of the frames that may start a scene (score 2 or more), in seconds from the film's start",
                bulky=True,
            ),
            column("cut_scores", pa.list_(pa.float32()), "Scores of these frames, 2 to 100", bulky=True),
            column(
                "key_times",
                pa.list_(pa.float64()),
                "Times of the key frames, in seconds from the film's start",
                bulky=True,
            ),
            column("length", pa.float64(), "Seconds of the film that can be decoded", 0),
        ]
    )
    packages: ClassVar = {"av": "models"}

    def load(self) -> _Finder:
        self.check_available()
        return _Finder()


class _Finder(ImageFacts):
    """`ImageFacts` of `scenes`; `prepare` does all the work, in threads."""

    has_model = False

    def __init__(self) -> None:
        import av

        self.provenance = {"av": version("av"), "ffmpeg": str(av.ffmpeg_version_info)}

    def prepare(self, film: FilmFile, duration: float | None) -> SceneCuts:
        """Decode a film; `duration` is its length in seconds by the index.

        Raises:
            BadSampleError: It cannot be read, or breaks off.
        """
        return find_cuts(film, duration)

    def __call__(self, inputs: Sequence[SceneCuts]) -> pa.Table:
        rows = [
            {
                "cuts": len(select_cuts(cuts.cut_times, cuts.cut_scores, _DEFAULTS.min_score, _DEFAULTS.min_gap)),
                "cut_times": cuts.cut_times,
                "cut_scores": cuts.cut_scores,
                "key_times": cuts.key_times,
                "length": cuts.length,
            }
            for cuts in inputs
        ]
        return pa.Table.from_pylist(rows, schema=Scenes.writes)
