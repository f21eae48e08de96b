"""Train one stage on packed rows, and hold all state that a checkpoint stores.

The loss of a step is the mean over all learned tokens (those whose prediction the loss counts) of all rows on all
workers. So it does not matter how the tokens are spread over rows, samples and workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from core.errors import UserError
from model.packed_row import PackedRow
from model.processor import Processor
from model.training import checkpoints
from model.training.checkpoints import State
from model.training.data.loader import LoadedRow, Loader, StepRows
from model.training.data.processes import default_count
from model.training.data.sampler import MixtureSampler
from model.training.dist import DistContext, full_tensor, shard
from model.training.flops import row_flops
from model.training.param_groups import Group, parameter_groups
from model.training.recipe import TrainRecipe
from model.training.resume import check_same, newest_valid
from model.training.schedule import factor
from model.training.stage import Stage
from model.videollama3 import VideoLLaMA3


@dataclass(frozen=True)
class Step:
    """Metrics of one step, over all workers; the two times are this worker's.

    Attributes:
        step: Number of the step, from 1.
        progress: Share of the stage that is done, 0 to 1.
        loss: Mean loss per learned token, in nats.
        rates: Learning rate of each parameter group, by the pattern of its names.
        grad_norm: Norm of the gradients before clipping.
        samples: Number of samples in the rows; each piece of a split sample counts.
        tokens: Number of tokens in the rows.
        labelled: Number of learned tokens.
        patches: Number of patches that went through the encoder.
        packing_efficiency: Tokens divided by the rows' token budget, 0 to 1.
        flops: FLOPs of the model, forward and backward, without recomputation by activation checkpointing.
        seconds: Duration of the step.
        data_time: The part of `seconds` that was spent waiting for data.
        skipped: One line per bad sample that was skipped.
    """

    step: int
    progress: float
    loss: float
    rates: Mapping[str, float]
    grad_norm: float
    samples: int
    tokens: int
    labelled: int
    patches: int
    packing_efficiency: float
    flops: float
    seconds: float
    data_time: float
    skipped: Sequence[str]


class Trainer:
    """Train a model for one stage.

    Attributes:
        model: The model, changed in place.
        step: Number of steps that are done.
        consumed_samples: Number of samples in the rows of these steps, and of skipped ones, over all workers.
        trainable: The parameters that are trained, by name.
        initial_state: The state before step 1, with what the stage is trained on.
    """

    def __init__(
        self,
        model: VideoLLaMA3,
        processor: Processor,
        *,
        recipe: TrainRecipe,
        stage: Stage,
        sampler: MixtureSampler,
        folder: Path,
        world: DistContext,
        data: dict[str, str] | None = None,
    ) -> None:
        """Start a stage, or continue from the newest valid checkpoint in `folder`.

        Args:
            model: The model; it is changed in place.
            processor: The model's processor.
            recipe: The whole training recipe.
            stage: The stage to train.
            sampler: Gives the order of the stage's samples.
            folder: Folder of the stage, for its checkpoints.
            world: The workers.
            data: Fingerprints of the training data, by name. They must equal those of a checkpoint.

        Raises:
            UserError: A pattern or parameter is unmatched, the virtual ranks are not a multiple of the workers, a
                checkpoint belongs to another stage or other data, or no checkpoint is valid.
        """
        self.model, self.processor, self.recipe, self.stage, self.sampler = model, processor, recipe, stage, sampler
        self.folder, self.world = folder, world
        self._bf16 = (stage.precision or ("bf16" if world.device.type == "cuda" else "fp32")) == "bf16"
        groups = self._prepare_model()
        self.optimizer = torch.optim.AdamW(groups, betas=stage.betas, fused=world.device.type == "cuda")
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.initial_state = State(
            step=0,
            consumed_samples=0,
            virtual_ranks={},
            stage=stage.model_dump(mode="json"),
            rows={source.name: sum(source.blocks) for source in sampler.sources},
            data=data or {},
        )
        state = self._restore()
        self.step, self.consumed_samples = state.step, state.consumed_samples
        self._virtual_ranks = state.virtual_ranks
        self.loader = Loader(
            sampler,
            processor,
            stage,
            rank=world.rank,
            workers=world.size,
            threads=recipe.threads,
            processes=default_count() if recipe.workers is None else recipe.workers,
            device=world.device,
            skip_limit=recipe.skip_limit,
            state=state.virtual_ranks,
        )

    def _restore(self) -> State:
        """Restore the newest valid checkpoint and return its state; without one, return the state before step 1."""
        last = newest_valid(self.folder, self.world)
        if last is None:
            return self.initial_state
        path, state = last
        check_same(path, state, self.initial_state)
        checkpoints.restore(path, self.trainable, self.optimizer, self.world)
        return state

    def _prepare_model(self) -> list[Group]:
        """Move the model to its device, shard it among the workers, and return the parameter groups."""
        model, stage = self.model, self.stage
        model.to(self.world.device).train()
        rates, decay = stage.learning_rates, stage.weight_decay
        groups = parameter_groups(model.named_parameters(), rates, decay)
        if stage.checkpointing:
            model.enable_checkpointing()
        if stage.compile:
            for block in [*model.vision.layers, *model.language.model.layers]:
                block.compile(dynamic=True)
        if self.world.size > 1:
            shard(model, self.world, self._bf16)
            groups = parameter_groups(model.named_parameters(), rates, decay)  # sharding replaced the parameters
        return groups

    def run_step(self) -> Step | None:
        """Run one step and return its metrics, or None if the stage is over.

        Raises:
            UserError: The loss or the gradient norm is not finite, or there is no sample to train on.
        """
        if self.stage.steps is not None and self.step >= self.stage.steps:
            return None
        begin = time.perf_counter()
        loaded: StepRows = next(self.loader)
        data_time = time.perf_counter() - begin
        local_labels = sum(sample.labelled for row in loaded.rows for sample in row.samples)
        row_count, label_count, consumed_samples = self.world.all_reduce_sum(
            [len(loaded.rows), local_labels, loaded.consumed_samples]
        )
        if not row_count:
            self._check_any_sample(loaded.skipped)
            return None
        progress_before, self.consumed_samples = self.progress(), int(consumed_samples)
        self._virtual_ranks = loaded.virtual_ranks
        loss, flops = self._backward(loaded.rows, label_count)
        norm = self._clip_gradients()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._raise_non_finite(loaded.rows, loss, norm)
        self.step += 1
        rates = self._set_rates((progress_before + self.progress()) / 2)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - begin
        samples, tokens, labelled, patches, rows = self._counts(loaded.rows)
        return Step(
            step=self.step,
            progress=self.progress(),
            loss=loss,
            rates=rates,
            grad_norm=norm,
            samples=samples,
            tokens=tokens,
            labelled=labelled,
            patches=patches,
            packing_efficiency=tokens / (rows * self.stage.tokens),
            flops=flops,
            seconds=seconds,
            data_time=data_time,
            skipped=self._of_all_workers(loaded.skipped),
        )

    def _counts(self, rows: Sequence[LoadedRow]) -> list[int]:
        """Return the numbers of samples, tokens, learned tokens, patches and rows, over all workers."""
        samples = [sample for row in rows for sample in row.samples]
        counts = [
            len(samples),
            sum(sample.tokens for sample in samples),
            sum(sample.labelled for sample in samples),
            sum(sample.patches for sample in samples),
            len(rows),
        ]
        return [int(count) for count in self.world.all_reduce_sum(counts)]

    def _of_all_workers(self, lines: Sequence[str]) -> list[str]:
        return [line for lines_of_one in self.world.all_gather(list(lines)) for line in lines_of_one]

    def progress(self) -> float:
        """Return the share of the stage that is done, 0 to 1."""
        if self.stage.steps is not None:
            return self.step / self.stage.steps
        assert self.loader.total is not None
        return self.consumed_samples / self.loader.total

    def _check_any_sample(self, skipped: Sequence[str]) -> None:
        """Raise if the data ended before the first step."""
        if not self.step:
            reasons = self._of_all_workers(skipped)
            last = f"; the last of {len(reasons):,} that were skipped: {reasons[-1]}" if reasons else ""
            raise UserError(f"stage {self.stage.name}: not one sample to train on{last}")

    def _backward(self, rows: Sequence[LoadedRow], label_count: float) -> tuple[float, float]:
        """Compute the gradients of all rows of a step. Return the mean loss and the FLOPs, over all workers."""
        dummy = PackedRow.dummy(self.model.config.vision.patch_dim).with_media()
        loss, flops = torch.zeros((), device=self.world.device), 0.0
        # Sharded workers must run the same number of rows: those out of data run dummies.
        count = self.stage.rows // self.world.size if self.world.size > 1 else len(rows)
        for number in range(count):
            row = rows[number].inputs if number < len(rows) else dummy
            flops += row_flops(self.model, row)
            layout, row = self.model.layout(row), row.to(self.world.device, non_blocking=True)
            with self.autocast():
                # FSDP2 averages gradients over workers. Dividing label_count by their number turns that into a sum.
                out = self.model(**row, layout=layout, label_count=max(label_count, 1) / self.world.size)
            out.loss.backward()
            loss += out.loss.detach()
        mean_loss, total_flops = self.world.all_reduce_sum([float(loss) / self.world.size, flops])
        return mean_loss, total_flops

    def autocast(self) -> AbstractContextManager[object]:
        """Return the autocast context for bf16 with one worker. With several, FSDP2 casts, and this does nothing."""
        if self._bf16 and self.world.size == 1:
            return torch.autocast(self.world.device.type, torch.bfloat16)
        return nullcontext()

    def _clip_gradients(self) -> float:
        """Clip the gradients, and return their norm before."""
        norm = torch.nn.utils.clip_grad_norm_(self.trainable.values(), self.stage.clip or math.inf)
        return float(full_tensor(norm))

    def _set_rates(self, progress: float) -> dict[str, float]:
        """Set the learning rates for a progress of 0 to 1, and return them by group."""
        scale = factor(progress, self.stage.warmup, self.stage.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * scale
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def _raise_non_finite(self, rows: Sequence[LoadedRow], loss: float, norm: float) -> None:
        names = self._of_all_workers([sample.name for row in rows for sample in row.samples])
        shown = "; ".join(names[:20]) + (f"; and {len(names) - 20} more" if len(names) > 20 else "")
        raise UserError(
            f"stage {self.stage.name}, step {self.step + 1}: loss {loss}, gradient norm {norm}; nothing was "
            f"changed by it. Lower the learning rate, or take out what is bad among: {shown}"
        )

    def save(self) -> None:
        """Write a checkpoint, and delete all but the last `keep_last`."""
        by_worker = self.world.all_gather(self._virtual_ranks)
        ranks = {number: state for states in by_worker for number, state in states.items()}
        state = replace(self.initial_state, step=self.step, consumed_samples=self.consumed_samples, virtual_ranks=ranks)
        checkpoints.save(self.folder, self.trainable, self.optimizer, state, self.world)
        if self.world.is_main:
            checkpoints.retain(self.folder, self.recipe.keep_last)

    def close(self) -> None:
        """Shut down the loader's threads and processes."""
        self.loader.close()
