"""Facts of clips out of the facts of their frames.

Numbers become the mean, the smallest and the largest value of the frames, embeddings become their mean direction, and
of names and texts that of the middle frame counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import BadSampleError
from core.images import decode
from core.stages import ENCODED, IMAGE, IMAGE_INPUTS, PORTABLE, Facts, ImageFacts, ImageStage, Stage
from manifests.embeddings import from_matrix, is_embedding, to_matrix
from manifests.schemas import ERROR, RETRY, bounds, column, is_amount

PER_FRAME = "_frames"
"""What follows the name of an embedding in the name of the column with one embedding per frame."""

_FRAMES = 64
"""Frames of a call, unless the stage says how many images it takes."""

Clips = Sequence[tuple[int, int]]
"""The first frame of each clip, and the frame behind its last, as rows of a table of frames."""


@dataclass(frozen=True)
class ClipFrames:
    """What the stage for images has made of a clip: what its `prepare` returned for each frame, and their times."""

    prepared: Sequence[Any]
    times: Sequence[float]


class FrameFacts(ImageFacts):
    """`ImageFacts` over frames: `prepare` decodes and prepares all frames of a clip."""

    def __init__(self, stage: ImageStage, facts: ImageFacts) -> None:
        self._stage, self._facts = stage, facts
        self._middle_only = not any(is_amount(field) or is_embedding(field) for field in stage.writes)
        self.calls, self.has_model, self.provenance = facts.calls, facts.has_model, facts.provenance

    def prepare(self, frames: Sequence[bytes] | None, times: Sequence[float] | None, *others: Any) -> ClipFrames:
        """Prepare the frames of a clip.

        Args:
            frames: Encoded frames.
            times: Their times, in seconds from the clip's start.
            others: What else the stage reads.

        Raises:
            BadSampleError: There are no frames, or the stage cannot use one.
        """
        if not frames or times is None:
            raise BadSampleError("no frames: nothing is stored")
        if self._middle_only:
            middle = len(frames) // 2
            return ClipFrames([self._prepare(frames[middle], b"".join(frames), others)], times[middle : middle + 1])
        return ClipFrames([self._prepare(frame, frame, others) for frame in frames], times)

    def _prepare(self, frame: bytes, encoded: bytes, others: Sequence[Any]) -> Any:
        """Prepare a frame. `encoded` are the bytes that are hashed: a clip is a copy if all its frames are."""
        left, reads = iter(others), self._stage.reads
        inputs = {name: next(left) for name in reads if name not in IMAGE_INPUTS}
        inputs |= {ENCODED: encoded, PORTABLE: frame}  # a stored frame is an upright JPEG
        inputs |= {IMAGE: decode(frame, self._facts.side)} if IMAGE in reads else {}
        return self._facts.prepare(*(inputs[name] for name in reads))

    def __call__(self, inputs: Sequence[ClipFrames]) -> pa.Table:
        every = [prepared for clip in inputs for prepared in clip.prepared]
        size = self._stage.batch_size or _FRAMES
        computed = [self._facts(every[start : start + size]) for start in range(0, len(every), size)]
        frames = pa.concat_tables(computed, promote_options="default")
        clips = _clips([len(clip.prepared) for clip in inputs])
        return summed_up(self._stage, frames, clips, [f"at {time:.1f} s" for clip in inputs for time in clip.times])


class EmbeddingFacts(Facts):
    """`Facts` over the embeddings of frames."""

    def __init__(self, stage: Stage, facts: Facts) -> None:
        self._stage, self._facts = stage, facts
        self.provenance = facts.provenance

    def __call__(self, batch: pa.Table) -> pa.Table:
        lists = [batch[name + PER_FRAME].combine_chunks() for name in self._stage.reads]
        counts = lists[0].value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        frames = pa.table([values.flatten() for values in lists], names=list(self._stage.reads))
        names = [f"number {frame + 1}" for count in counts for frame in range(count)]
        computed = self._facts(frames) if frames.num_rows else pa.schema(self._stage.writes).empty_table()
        return summed_up(self._stage, computed, _clips(counts), names)


def columns_of(inner: pa.Field) -> Iterator[pa.Field]:
    """Yield the columns of a clip for a column of an image."""
    doc = (inner.metadata or {}).get(b"doc", b"").decode()
    if is_embedding(inner):
        yield inner
        every = column(inner.name + PER_FRAME, pa.list_(inner.type), f"{doc}, of each stored frame", bulky=True)
        yield every.with_metadata({**(inner.metadata or {}), **every.metadata})
    elif is_amount(inner):
        low, high = bounds(inner)
        for name, what in (("", "mean"), ("_min", "smallest value"), ("_max", "largest value")):
            yield column(f"{inner.name}{name}", pa.float32(), f"{doc}: {what} of the frames", low, high)
    else:
        yield inner


def summed_up(stage: Stage, frames: pa.Table, clips: Clips, names: Sequence[str]) -> pa.Table:
    """Return the facts of clips, with `error` and `retry`. A clip with a frame that failed has only an error.

    Args:
        stage: The stage for images.
        frames: Its facts of all frames; it may have the columns `error` and `retry`.
        clips: Which frames are a clip's.
        names: What a frame is called in an error.
    """
    columns = {field: array for inner in stage.writes for field, array in _columns(inner, frames, clips)}
    errors, retries = _errors(frames, clips, names)
    failed = errors.is_valid().to_numpy(zero_copy_only=False)
    arrays = [_without(array, failed) for array in columns.values()]
    return pa.table([*arrays, errors, retries], schema=pa.schema([*columns, ERROR, RETRY]))


def _clips(counts: Sequence[int]) -> Clips:
    ends = np.cumsum(counts)
    return list(zip((ends - counts).tolist(), ends.tolist(), strict=True))


def _columns(inner: pa.Field, frames: pa.Table, clips: Clips) -> Iterator[tuple[pa.Field, pa.Array]]:
    """Yield the columns of clips for a column of frames."""
    fields, values = list(columns_of(inner)), frames[inner.name].combine_chunks()
    if is_embedding(inner):
        matrix, _ = to_matrix(values)
        means, _ = from_matrix(np.stack([matrix[begin:end].sum(0) for begin, end in clips]))
        offsets = pa.array([0, *(end for _, end in clips)], pa.int32())
        per_frame = pa.ListArray.from_arrays(offsets, values, type=fields[1].type)
        yield from zip(fields, (means.cast(fields[0].type), per_frame), strict=True)
    elif is_amount(inner):
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        pieces = [numbers[begin:end] for begin, end in clips]
        pieces = [piece[~np.isnan(piece)] for piece in pieces]
        of_each = [(piece.mean(), piece.min(), piece.max()) if len(piece) else (None,) * 3 for piece in pieces]
        for number, field in enumerate(fields):
            yield field, pa.array([values[number] for values in of_each], field.type)
    else:
        middles = [(begin + end) // 2 if begin < end else None for begin, end in clips]
        yield fields[0], values.take(pa.array(middles, pa.int64()))


def _errors(frames: pa.Table, clips: Clips, names: Sequence[str]) -> tuple[pa.Array, pa.Array]:
    """Return the error of each clip, that of its first frame with one, and whether it can be retried."""
    stored = frames.column_names
    said = frames[ERROR.name].to_pylist() if ERROR.name in stored else [None] * frames.num_rows
    again = frames[RETRY.name].to_pylist() if RETRY.name in stored else [False] * frames.num_rows
    errors: list[str | None] = []
    retries: list[bool] = []
    for begin, end in clips:
        bad = next((row for row in range(begin, end) if said[row]), None)
        if bad is not None:
            errors.append(f"{said[bad]} (frame {names[bad]})")
            retries.append(bool(again[bad]))
        else:
            errors.append(None if end > begin else "no frames: nothing is stored")
            retries.append(False)
    return pa.array(errors, ERROR.type), pa.array(retries, RETRY.type)


def _without(array: pa.Array, failed: Any) -> pa.Array:
    """Return the array with null where a clip failed."""
    return array.take(pa.array(np.arange(len(array)), pa.int64(), mask=failed)) if failed.any() else array
