"""Pack a stage as training does, with the sizes of samples instead of their tensors.

The same order, virtual ranks and packers, and the same rules for bad samples. Nothing is read or decoded here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.errors import BadSampleError, UserError
from model.training.data.measurement import QUANTITIES, Measured, MeasuredPiece
from model.training.data.packing import Packer, Row
from model.training.data.sampler import MixtureSampler
from model.training.data.samples import ConsecutiveSkips
from model.training.data.virtual_rank import VirtualRank
from model.training.estimates import Z
from model.training.stage import Stage

_SKIPPED = QUANTITIES.index("skipped")


@dataclass(frozen=True, slots=True)
class PlacedPiece:
    """A measured piece at its place in the order. The attributes are those of `Prepared`."""

    index: int
    piece: int
    source: int
    measured: MeasuredPiece

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.measured.tokens

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.measured.patches


@dataclass
class Simulation:
    """What the simulated steps have.

    Attributes:
        complete: Whether the stage was simulated to its end.
        steps: Number of steps.
        rows: Number of packed rows.
        text_rows: Rows without an image or a film.
        tokens: Tokens in the rows.
        fills: Of each row the used share of its tighter budget, tokens or patches.
        read: Number of samples that were read, also those that are in no row yet.
        totals: Quantities of the rows and of skipped samples, by source and quantity.
        last_error: Why the last bad sample is skipped.
    """

    totals: NDArray[np.float64]
    complete: bool = False
    steps: int = 0
    rows: int = 0
    text_rows: int = 0
    tokens: int = 0
    read: int = 0
    last_error: str = ""
    fills: list[float] = field(default_factory=list)

    @property
    def packing_error(self) -> float:
        """Half of a 95 % interval of the relative difference that another packing of such samples would make."""
        if len(self.fills) < 2:
            return 1.0
        return Z * float(np.std(self.fills, ddof=1) / np.mean(self.fills)) * math.sqrt(2 / len(self.fills))


def simulate(
    stage: Stage,
    sampler: MixtureSampler,
    measured: Callable[[int, int], Measured],
    *,
    skip_limit: int,
    most: int,
) -> Simulation:
    """Pack a stage's samples until it ends, or until so many are read.

    Args:
        stage: The stage.
        sampler: Its order.
        measured: Returns the sizes of a sample, by the number of its source and its row.
        skip_limit: Number of bad samples in a row that ends a run.
        most: Number of samples after which the simulation ends, at the end of a step.

    Raises:
        UserError: Training would end there: too many bad samples in a row, or none to train on.
    """
    result = Simulation(np.zeros((len(sampler.sources), len(QUANTITIES))))
    skips, total = ConsecutiveSkips(skip_limit), stage.num_samples(sampler.epoch_length)

    def submit(index: int) -> Future[list[PlacedPiece]]:
        future: Future[list[PlacedPiece]] = Future()
        source, row = sampler(index)
        sample = measured(source, row)
        result.read += 1
        if sample.error:
            result.totals[source] += sample.sizes
            future.set_exception(BadSampleError(sample.error))
        else:
            placed = [PlacedPiece(index, number, source, piece) for number, piece in enumerate(sample.pieces)]
            future.set_result(placed)
        return future

    def report(error: BadSampleError | None) -> None:
        if error:
            result.last_error = str(error)
        skips.add(error)

    count = stage.num_virtual_ranks
    ranks = [
        VirtualRank(number, count, total, Packer(stage.tokens, stage.patch_budget), submit, samples_ahead=1)
        for number in range(count)
    ]
    while not (ended := result.steps == stage.steps) and result.read < most:
        rows = [row for rank in ranks for _ in range(stage.rows // count) if (row := rank.next_row(report))]
        if ended := not rows:
            break
        result.steps += 1
        for row in rows:
            _add(result, row, stage)
    result.complete = ended
    if ended and not result.steps:
        skipped = int(result.totals[:, _SKIPPED].sum())
        last = f"; the last of {skipped:,} that were skipped: {result.last_error}" if skipped else ""
        raise UserError(f"stage {stage.name}: not one sample to train on{last}")
    return result


def _add(result: Simulation, row: Row[PlacedPiece], stage: Stage) -> None:
    result.rows += 1
    result.fills.append(max(row.tokens / stage.tokens, row.patches / stage.patch_budget))
    result.tokens += row.tokens
    result.text_rows += not row.patches
    for sample in row.samples:
        result.totals[sample.source] += sample.measured.sizes
