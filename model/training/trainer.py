"""Train one stage on packed rows, and hold all state that a checkpoint stores.

The loss of a step is the mean over all learned tokens of all rows on all workers. So it does not matter how the tokens
are spread over rows, samples and workers. The head is applied to learned tokens only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError
from model.packed_row import PackedRow
from model.processor import Processor
from model.training import checkpoints
from model.training.data.loader import Loader, StepRows
from model.training.data.packing import Row
from model.training.data.prepare import Prepared
from model.training.data.sampler import MixtureSampler
from model.training.dist import DistContext, shard
from model.training.flops import row_flops
from model.training.param_groups import parameter_groups
from model.training.recipe import TrainRecipe
from model.training.resume import check_same, last_sound
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
        rates: Learning rate by pattern.
        grad_norm: Norm of the gradients before clipping.
        samples: Number of samples, or pieces of samples, in the rows.
        tokens: Number of tokens in the rows.
        labelled: Number of learned tokens.
        patches: Number of patches that went through the encoder.
        fill: Packing efficiency: used share of the rows' token budget, 0 to 1.
        flops: FLOPs of the model, forward and backward, without recomputation by activation checkpointing.
        seconds: Duration of the step.
        waiting: Data time: the part of `seconds` spent waiting for data.
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
    fill: float
    flops: float
    seconds: float
    waiting: float
    skipped: Sequence[str]


class Trainer:
    """Train a model for one stage.

    Attributes:
        model: The model, changed in place.
        step: Number of steps that are done.
    """

    def __init__(
        self,
        model: VideoLLaMA3,
        processor: Processor,
        recipe: TrainRecipe,
        stage: Stage,
        order: MixtureSampler,
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
            order: Order of the stage's samples.
            folder: Folder of the stage.
            world: The workers.
            data: Fingerprints of the training data, by name. A checkpoint with other fingerprints raises.

        Raises:
            UserError: A pattern or parameter is unmatched, the lanes are not a multiple of the workers, a checkpoint
                belongs to another stage or other data, or no checkpoint is valid.
        """
        self.model, self.recipe, self.stage, self.folder, self.world = model, recipe, stage, folder, world
        rows = {source.name: sum(source.blocks) for source in order.sources}
        self._half = (stage.precision or ("bf16" if world.device.type == "cuda" else "fp32")) == "bf16"
        self.groups = self._prepare()
        self.optimizer = torch.optim.AdamW(self.groups, betas=stage.betas, fused=world.device.type == "cuda")
        self.learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.step, self.given, lanes = 0, 0, None
        self._state = checkpoints.State(0, 0, {}, stage.model_dump(mode="json"), rows, data or {})
        if last := last_sound(folder, world):
            path, state = last
            check_same(path, state, self._state)
            checkpoints.restore(path, self.learning, self.optimizer, world)
            self.step, self.given, lanes = state.step, state.given, state.lanes
        self.loader = Loader(
            order,
            processor,
            stage,
            rank=world.rank,
            workers=world.size,
            threads=recipe.threads,
            skip_limit=recipe.skip_limit,
            state=lanes,
        )
        self._lanes: dict[int, Any] = lanes or {}

    def _prepare(self) -> list[dict[str, Any]]:
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
            shard(model, self.world, self._half)
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
        ready: StepRows = next(self.loader)
        waiting = time.perf_counter() - begin
        sums = self.world.all_reduce_sum(
            [len(ready.rows), sum(s.labelled for row in ready.rows for s in row.samples), ready.given]
        )
        if not sums[0]:
            self._check_any(ready.skipped)
            return None
        before, self.given = self._progress(), int(sums[2])
        self._lanes = ready.state
        loss, flops = self._backward(ready.rows, labelled=sums[1])
        norm = self._clip()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._stop(ready.rows, loss, norm)
        self.step += 1
        rates = self._set_rates((before + self._progress()) / 2)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self._step_metrics(ready, loss, norm, rates, flops, time.perf_counter() - begin, waiting)

    def _progress(self) -> float:
        """Return the share of the stage that is done, 0 to 1."""
        if self.stage.steps is not None:
            return self.step / self.stage.steps
        assert self.loader.total is not None
        return self.given / self.loader.total

    def _check_any(self, skipped: Sequence[str]) -> None:
        if not self.step:
            reasons = [reason for theirs in self.world.all_gather(list(skipped)) for reason in theirs]
            last = f"; the last of {len(reasons):,} that were skipped: {reasons[-1]}" if reasons else ""
            raise UserError(f"stage {self.stage.name}: not one sample to train on{last}")

    def _backward(self, rows: Sequence[Row[Prepared]], labelled: float) -> tuple[float, float]:
        """Compute the gradients of all rows of a step. Return the loss and the FLOPs, summed over all workers."""
        count = self.stage.rows // self.world.size
        loss, flops = torch.zeros((), device=self.world.device), 0.0
        for number in range(count if self.world.size > 1 else len(rows)):
            if number < len(rows):
                row = PackedRow.pack([sample.inputs for sample in rows[number].samples]).with_media()
            else:
                row = PackedRow.dummy(self.model.config.vision.patch_dim).with_media()
            flops += row_flops(self.model, row)
            row = row.to(self.world.device, non_blocking=True)
            with self.precision():
                # FSDP2 averages gradients over workers; dividing label_count by their number makes it a sum.
                out = self.model(**row, label_count=max(labelled, 1) / self.world.size)
            out.loss.backward()
            loss += out.loss.detach()
        summed = self.world.all_reduce_sum([float(loss) / self.world.size, flops])
        return summed[0], summed[1]

    def precision(self) -> AbstractContextManager[Any]:
        """Return the autocast context for bf16 on one process. With several, FSDP2 casts."""
        if self._half and self.world.size == 1:
            return torch.autocast(self.world.device.type, torch.bfloat16)
        return nullcontext()

    def _clip(self) -> float:
        from model.training.dist import full_tensor

        norm = torch.nn.utils.clip_grad_norm_(self.learning.values(), self.stage.clip or math.inf)
        return float(full_tensor(norm))

    def _set_rates(self, progress: float) -> dict[str, float]:
        scale = factor(progress, self.stage.warmup, self.stage.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * scale
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def _stop(self, rows: Sequence[Row[Prepared]], loss: float, norm: float) -> None:
        mine = [sample.name for row in rows for sample in row.samples]
        names = [name for theirs in self.world.all_gather(mine) for name in theirs]
        shown = "; ".join(names[:20]) + (f"; and {len(names) - 20} more" if len(names) > 20 else "")
        raise UserError(
            f"stage {self.stage.name}, step {self.step + 1}: loss {loss}, gradient norm {norm}; nothing was "
            f"changed by it. Lower the learning rate, or take out what is bad among: {shown}"
        )

    def _step_metrics(
        self,
        ready: StepRows,
        loss: float,
        norm: float,
        rates: Mapping[str, float],
        flops: float,
        seconds: float,
        waiting: float,
    ) -> Step:
        samples = [sample for row in ready.rows for sample in row.samples]
        counts = self.world.all_reduce_sum(
            [
                len(samples),
                sum(sample.tokens for sample in samples),
                sum(sample.labelled for sample in samples),
                sum(sample.patches for sample in samples),
                len(ready.rows),
            ]
        )
        number, tokens, labelled, patches, rows = (int(count) for count in counts)
        skipped = [name for names in self.world.all_gather(ready.skipped) for name in names]
        fill = tokens / (rows * self.stage.tokens)
        return Step(
            self.step,
            self._progress(),
            loss,
            rates,
            norm,
            number,
            tokens,
            labelled,
            patches,
            fill,
            flops,
            seconds,
            waiting,
            skipped,
        )

    def save(self) -> None:
        """Write a checkpoint, and delete all but the last `keep_last`."""
        lanes = {number: lane for part in self.world.all_gather(self._lanes) for number, lane in part.items()}
        state = replace(self._state, step=self.step, given=self.given, lanes=lanes)
        checkpoints.save(self.folder, self.learning, self.optimizer, state, self.world)
        if self.world.is_main:
            checkpoints.retain(self.folder, self.recipe.keep_last)

    def close(self) -> None:
        """Shut down the loader's threads."""
        self.loader.close()
