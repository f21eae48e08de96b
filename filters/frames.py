"""Decode a clip once: a few stored frames for all later stages, and measures of motion, stillness and black."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from importlib.metadata import version
from typing import ClassVar, NamedTuple

import numpy as np
import PIL
import pyarrow as pa
from PIL import Image
from pydantic import Field

from core.errors import BadSampleError
from core.film_length import LOST
from core.films import FilmFile
from core.frame_pixels import Frame
from core.stages import FILM, ImageFacts, ImageStage
from core.videos import Video, choose, decode, probe
from filters.frame_measures import FrameMeasures, Measures
from manifests.schemas import column

_FILMS = 64  # whose headers are remembered; clips of a film mostly follow one another


class Frames(ImageStage):
    """Frames of a clip, and how much they move: the clip is decoded once, for this and all later stages.

    The clip, `start` to `end` on the film's clock, is sampled `fps` times a second (frames on display at start, start +
    1/fps, … before end, as the trainer and the chat choose them: `core/frame_sampling.py`); of more than `max_frames`
    that many are taken, evenly spaced. Each is turned upright and, if it is larger, scaled down to a longer side of
    `side` pixels. All columns are measured on these pictures. Then `stored` of them, evenly spaced, first and last
    included, are stored as JPEGs, with their times in seconds from the clip's start.

    `motion` is the mean absolute difference of the pixels of neighbouring sampled frames, in grey levels, 0 to 255. In
    the unit of VideoLLaMA3's pruner DiffFP, which counts 255 times the difference of values of -1 to 1, it is twice as
    much. `kept_share` is the share of the language model's tokens that DiffFP keeps at its threshold 0.1 and merge size
    2: all of the first frame; of others the tokens of 28 x 28 pixels that differ by more than 0.05 grey levels from the
    frame before, and at least one. Both grow with the distance between sampled frames, so `fps` is a part of them.

    `still_share` is the share of neighbours that differ by at most 0.5 grey levels: nearly 1 for stills and slide
    shows, although a key frame of a lossy codec may look like a change. A clip with one sampled frame has no
    neighbours: its `motion` and `still_share` are null, and rules on these drop it. `black_share` is the share of
    frames of which 98 % of the values are below 32 (FFmpeg's `blackframe`). `border_share` is the share of the area
    around the picture that is at most 24 in all sampled frames (the limit of FFmpeg's `cropdetect`): bars above, below
    or beside it. Text in a bar ends it. It is 1 for a black clip.

    A clip that is not whole is an error: it ends behind its film, or cannot be decoded to its end. Only at the end of a
    film may up to a second be missing, since containers round durations.

    Attributes:
        fps: Sampled frames per second.
        stored: Number of stored frames; a clip with fewer sampled frames stores these.
        side: Longer side of a picture, in pixels; smaller films keep their size.
        quality: Quality of the JPEGs, 1 to 95.
        max_frames: Maximum number of sampled frames.
    """

    name: ClassVar = "frames"
    version: ClassVar = 2  # 1 took frames of other times where a seek led too far, as in MPEG-TS
    writes: ClassVar = pa.schema(
        [
            column("motion", pa.float32(), "Mean change between sampled frames, grey levels; null: one frame", 0, 255),
            column("kept_share", pa.float32(), "Share of tokens that DiffFP keeps at 0.1, merge size 2", 0, 1),
            column("still_share", pa.float32(), "Share of frames equal to the one before; null: one frame", 0, 1),
            column("black_share", pa.float32(), "Share of nearly black frames", 0, 1),
            column("border_share", pa.float32(), "Share of the area that is a black border in all frames", 0, 1),
            column("sampled", pa.int32(), "Number of sampled frames, which the measures are of", 1),
            column("frames", pa.list_(pa.binary()), "Stored frames: JPEGs, upright RGB", bulky=True),
            column("frame_times", pa.list_(pa.float32()), "Their times, seconds from the clip's start", bulky=True),
        ]
    )

    fps: float = Field(default=2.0, gt=0, le=1000)
    stored: int = Field(default=8, ge=1, le=1000)
    side: int = Field(default=448, ge=2, le=8192)
    quality: int = Field(default=90, ge=1, le=95)
    max_frames: int = Field(default=180, ge=1, le=100_000)

    @property
    def reads(self) -> Sequence[str]:
        return (FILM, "start", "end")

    def load(self) -> ClipReader:
        return ClipReader(self)


class ClipFrames(NamedTuple):
    """The facts of one clip.

    Attributes:
        measures: Of all sampled frames.
        sampled: Their number.
        frames: The stored ones, as JPEGs.
        frame_times: Their times, in seconds from the clip's start.
    """

    measures: Measures
    sampled: int
    frames: list[bytes]
    frame_times: list[float]


class ClipReader(ImageFacts):
    """`ImageFacts` of `frames`; `prepare` does all the work, in threads."""

    has_model = False

    def __init__(self, stage: Frames) -> None:
        self._stage = stage
        self._films: OrderedDict[tuple[str, int | None], Video] = OrderedDict()
        self._lock = threading.Lock()
        self.provenance = {"av": version("av"), "pillow": PIL.__version__, "numpy": np.__version__}

    def prepare(self, film: FilmFile, start: float, end: float) -> ClipFrames:
        """Decode and measure a clip, `start` to `end` in seconds. No more than a few frames are held.

        Raises:
            BadSampleError: The clip has no start or end; the film cannot be read, is another one than was indexed,
                ends before the clip does, or breaks off in it.
        """
        if end is None:
            raise BadSampleError(f"{film}: a clip without an end: index the clips again")
        if start is not None and end <= start:
            raise BadSampleError(f"{film}: empty clip: `trim` and `snap` leave nothing of its scene")
        stage, whole = self._stage, self._probed(film)
        video = choose(whole, stage.fps, stage.max_frames, start, end)
        if end - whole.length > LOST[1]:
            raise BadSampleError(
                f"{film}: behind the end: the clip ends at {end:.1f} s, the film at {whole.length:.1f} s; "
                "index the films again"
            )
        sampler = _Sampler(len(video.times), stage.stored, stage.quality)
        _, times = decode(video, sampler.add, side=stage.side, threads=1, restarted=sampler.restart)
        if len(times) < len(video.times) and whole.length - end > LOST[1]:
            raise BadSampleError(
                f"{film}: breaks off: at {times[-1]:.1f} s, within the clip from {start:.1f} s to {end:.1f} s; "
                "give a whole file"
            )
        frames, numbers = sampler.stored()
        return ClipFrames(sampler.measures.result(), len(times), frames, [times[k] - start for k in numbers])

    def _probed(self, film: FilmFile) -> Video:
        """Return the metadata of a film. Those of the last films are remembered: a film has many clips."""
        key = film.path or film.name, film.length
        with self._lock:
            video = self._films.get(key)
        if video is None:
            video = probe(film)
            with self._lock:
                self._films[key] = video
                while len(self._films) > _FILMS:
                    self._films.popitem(last=False)
        return video

    def __call__(self, inputs: Sequence[ClipFrames]) -> pa.Table:
        columns = zip(*((*clip.measures, *clip[1:]) for clip in inputs), strict=True) if inputs else [()] * 8
        arrays = [pa.array(values, field.type) for values, field in zip(columns, Frames.writes, strict=True)]
        return pa.table(arrays, schema=Frames.writes)


class _Sampler:
    """Measures sampled frames as they are decoded, and encodes those that are stored."""

    def __init__(self, planned: int, stored: int, quality: int) -> None:
        self._chosen = set(np.linspace(0, planned - 1, min(stored, planned), dtype=int).tolist())
        self._quality = quality
        self.restart()

    def restart(self) -> None:
        """Forget all frames."""
        self.measures = FrameMeasures()
        self._count = 0
        self._encoded: dict[int, bytes] = {}
        self._last: Frame | None = None

    def add(self, frame: Frame) -> None:
        """Take the next sampled frame."""
        self.measures.add(frame)
        if self._count in self._chosen:
            self._encoded[self._count] = self._jpeg(frame)
        self._count, self._last = self._count + 1, frame

    def stored(self) -> tuple[list[bytes], list[int]]:
        """Return the stored frames and their numbers. If the film lacks the planned last ones, the last is added."""
        assert self._last is not None
        if len(self._chosen) > 1 and self._count - 1 not in self._encoded:
            self._encoded[self._count - 1] = self._jpeg(self._last)
        return list(self._encoded.values()), list(self._encoded)

    def _jpeg(self, frame: Frame) -> bytes:
        encoded = io.BytesIO()
        Image.fromarray(frame).save(encoded, "JPEG", quality=self._quality)
        return encoded.getvalue()
