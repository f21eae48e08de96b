"""Load packed rows ahead of the trainer, and continue at the same sample after a restart.

The rows of a step come from virtual ranks (`lanes` in recipes). Virtual rank v of V reads samples v, v + V, v + 2V, …
of the sampler's order, packs them, and contributes rows / V rows to each step. Each worker has some of the virtual
ranks. So the rows of a step do not depend on the number of workers, and any number of workers can continue from the
states of all virtual ranks.

A bad sample is skipped, logged and counted. Many in a row end the run; any other error ends it at once.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from core.errors import BadSampleError
from model.packed_row import PackedRow
from model.processor import Processor
from model.training.data.packing import Packer, Row
from model.training.data.prepare import Prepared, Preparer, SampleInfo, for_stage
from model.training.data.processes import Processes
from model.training.data.sampler import MixtureSampler
from model.training.data.samples import ConsecutiveSkips
from model.training.data.virtual_rank import SAMPLES_AHEAD, VirtualRank, VirtualRankState
from model.training.stage import Stage

log = logging.getLogger("vl3syn.train")

_STEPS_AHEAD = 2  # steps whose rows are packed before the trainer asks for them


@dataclass(frozen=True, eq=False)
class LoadedRow:
    """A packed row, ready for its device.

    Attributes:
        samples: The samples of the row.
        inputs: Their tensors with at least one image, see `PackedRow.with_media`; in pinned memory if a GPU needs them.
    """

    samples: list[SampleInfo]
    inputs: PackedRow


@dataclass(frozen=True, eq=False)
class StepRows:
    """The rows of one worker for one step.

    Attributes:
        rows: Packed rows. At the end of the data there are fewer, or none.
        skipped: One line per bad sample that was skipped, with the reason.
        consumed_samples: Number of samples that this worker's virtual ranks have consumed since the stage began: those
            in finished rows, these included, and skipped ones.
        virtual_ranks: State of each virtual rank after these rows, by its number.
    """

    rows: list[LoadedRow]
    skipped: list[str]
    consumed_samples: int
    virtual_ranks: dict[int, VirtualRankState]


class Loader:
    """An endless iterator over one worker's `StepRows`. After the last sample, steps have no rows.

    One thread packs rows. Several threads read samples for it, and prepare them: themselves, or in processes.

    Attributes:
        total: Number of samples of the stage; None if only its number of steps is set.
    """

    def __init__(
        self,
        sampler: MixtureSampler,
        processor: Processor,
        stage: Stage,
        *,
        rank: int = 0,
        workers: int = 1,
        threads: int = 4,
        processes: int = 0,
        device: torch.device | None = None,
        skip_limit: int = 100,
        state: Mapping[int, VirtualRankState] | None = None,
    ) -> None:
        """Start at the first sample, or at a saved state, which any number of workers may have written.

        Args:
            sampler: Gives the order of samples.
            processor: The model's processor.
            stage: The stage of the training.
            rank: Number of this worker.
            workers: Number of workers.
            threads: Number of threads that read samples, besides those that wait for a process.
            processes: Number of processes that prepare samples; 0: the threads do. The rows are the same.
            device: Where the rows will go. For a GPU they are pinned.
            skip_limit: Number of bad samples in a row that ends the run.
            state: State of each virtual rank, by its number.

        Raises:
            UserError: The number of virtual ranks is not a multiple of the number of workers, or a process died.
            BadSampleError: A sample of the state can no longer be read.
        """
        stage.check_workers(workers)
        count = stage.num_virtual_ranks
        self._sampler, self._sources, self._skips = sampler, sampler.sources, ConsecutiveSkips(skip_limit)
        self.total = stage.num_samples(sampler.epoch_length)
        self._preparer = Preparer(for_stage(processor, stage), stage.tokens, stage.patch_budget)
        self._local = threading.local()
        self._processes = Processes(processes, self._preparer) if processes else None
        self._readers = ThreadPoolExecutor(threads + processes, thread_name_prefix="reader")
        self._device = device if device is not None and device.type == "cuda" else None
        on_device = (torch.cuda.set_device, (self._device,)) if self._device else (None, ())  # pins for this GPU
        self._packing = ThreadPoolExecutor(1, "packing", *on_device)
        self._virtual_ranks: list[VirtualRank[Prepared]] = [
            VirtualRank(
                number,
                count,
                self.total,
                Packer(stage.tokens, stage.patch_budget),
                self._submit,
                SAMPLES_AHEAD + processes,
            )
            for number in range(rank, count, workers)
        ]
        self._rows_per_virtual_rank = stage.rows // count
        self._steps: deque[Future[StepRows]] = deque()
        try:
            for virtual_rank in self._virtual_ranks:
                if state:
                    virtual_rank.restore(state[virtual_rank.number])
        except BaseException:
            self.close()
            raise

    def _submit(self, index: int) -> Future[list[Prepared]]:
        return self._readers.submit(self._prepare, index)

    def _prepare(self, index: int) -> list[Prepared]:
        source, row = self._sampler(index)
        sample = self._sources[source].sample(row)
        if self._processes:
            return self._processes.prepare(sample, index)
        if not hasattr(self._local, "preparer"):
            self._local.preparer = copy.deepcopy(self._preparer)  # threads must not share a tokenizer
        prepared: list[Prepared] = self._local.preparer(sample, index)
        return prepared

    def __iter__(self) -> Iterator[StepRows]:
        return self

    def __next__(self) -> StepRows:
        while len(self._steps) < _STEPS_AHEAD:
            self._steps.append(self._packing.submit(self._step))
        return self._steps.popleft().result()

    def _step(self) -> StepRows:
        skipped: list[str] = []

        def report(error: BadSampleError | None) -> None:
            if error:
                skipped.append(str(error))
                log.warning("skipped %s", error)
            self._skips.add(error)

        ranks, rows_per_rank = self._virtual_ranks, range(self._rows_per_virtual_rank)
        return StepRows(
            rows=[self._pack(row) for rank in ranks for _ in rows_per_rank if (row := rank.next_row(report))],
            skipped=skipped,
            consumed_samples=sum(rank.consumed_samples for rank in ranks),
            virtual_ranks={rank.number: rank.state() for rank in ranks},
        )

    def _pack(self, row: Row[Prepared]) -> LoadedRow:
        inputs = PackedRow.pack([sample.inputs for sample in row.samples]).with_media()
        return LoadedRow([sample.info for sample in row.samples], inputs.pin_memory() if self._device else inputs)

    def close(self) -> None:
        """Shut down the threads and processes."""
        for threads in (self._packing, self._readers):
            threads.shutdown(wait=False, cancel_futures=True)
        if self._processes:
            self._processes.close()
