"""One stage: step after step over packed rows, with everything that a checkpoint has to hold in one place.

The loss of a step is the sum over its learned tokens, of all rows on all workers, divided by their number: how they are
spread over rows, samples and workers makes no difference. The head is applied to learned tokens only.
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
from model.processor import Processor
from model.training import checkpoints
from model.training.flops import row_flops
from model.training.loader import Loader, StepRows
from model.training.order import Order
from model.training.packing import Row
from model.training.parts import parameter_groups
from model.training.prepare import Prepared, row_tensors
from model.training.recipe import TrainRecipe
from model.training.resume import check_same, last_sound
from model.training.schedule import factor
from model.training.stage import Stage
from model.training.world import World, shard
from model.videollama3 import VideoLLaMA3


@dataclass(frozen=True)
class Step:
    """What happened in a step, over all workers.

    Attributes:
        step: Its number, from 1.
        progress: Share of the stage that is done, 0 to 1.
        loss: Per learned token.
        rates: Learning rate by pattern.
        grad_norm: Before clipping.
        samples: That were in its rows.
        tokens: Of its rows.
        labelled: Tokens that were learned.
        patches: That went through the encoder.
        fill: Of the rows' token budget, 0 to 1.
        flops: Of the model, forward and backward, without what was computed twice to save memory.
        seconds: That it took.
        waiting: Of these, for data.
        skipped: Bad samples that were met.
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
    """Trains a model through one stage.

    Attributes:
        model: The model, changed in place.
        step: Steps that are done.
    """

    def __init__(
        self,
        model: VideoLLaMA3,
        processor: Processor,
        recipe: TrainRecipe,
        stage: Stage,
        order: Order,
        folder: Path,
        world: World,
        data: dict[str, str] | None = None,
    ) -> None:
        """Begin a stage, or go on from the newest sound checkpoint in `folder`.

        Args:
            model: Changed in place.
            processor: Of the model.
            recipe: Of the training.
            stage: That is trained.
            order: Of its samples.
            folder: Of the stage.
            world: The workers.
            data: Fingerprints of what it is trained on, by name; a checkpoint with others is refused.

        Raises:
            UserError: Patterns and parameters do not fit, lanes and workers neither, a checkpoint is of another stage
                or of other data, or none is sound.
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
        """The model on its device, divided among the workers, and its parameters in groups."""
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
            groups = parameter_groups(model.named_parameters(), rates, decay)  # those that sharding has put there
        return groups

    def run_step(self) -> Step | None:
        """Do one step; None if the stage is over."""
        if self.stage.steps is not None and self.step >= self.stage.steps:
            return None
        begin = time.perf_counter()
        ready: StepRows = next(self.loader)
        waiting = time.perf_counter() - begin
        sums = self.world.sums(
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
        return self._told(ready, loss, norm, rates, flops, time.perf_counter() - begin, waiting)

    def _progress(self) -> float:
        """Share of the stage that is done."""
        if self.stage.steps is not None:
            return self.step / self.stage.steps
        assert self.loader.total is not None
        return self.given / self.loader.total

    def _check_any(self, skipped: Sequence[str]) -> None:
        if not self.step:
            reasons = [reason for theirs in self.world.gathered(list(skipped)) for reason in theirs]
            last = f"; the last of {len(reasons):,} that were skipped: {reasons[-1]}" if reasons else ""
            raise UserError(f"stage {self.stage.name}: not one sample to train on{last}")

    def _backward(self, rows: Sequence[Row[Prepared]], labelled: float) -> tuple[float, float]:
        """Gradients of all rows of a step: loss and FLOPs, over all workers."""
        count = self.stage.rows // self.world.size
        loss, flops = torch.zeros((), device=self.world.device), 0.0
        for number in range(count if self.world.size > 1 else len(rows)):
            tensors = (
                row_tensors(rows[number], self.model.config.vision.patch_dim) if number < len(rows) else self._blank()
            )
            flops += row_flops(self.model, tensors)
            tensors = {name: tensor.to(self.world.device, non_blocking=True) for name, tensor in tensors.items()}
            with self.precision():
                # FSDP2 takes the mean over workers of gradients that we want summed.
                out = self.model(**tensors, label_count=max(labelled, 1) / self.world.size)
            out.loss.backward()
            loss += out.loss.detach()
        summed = self.world.sums([float(loss) / self.world.size, flops])
        return summed[0], summed[1]

    def _blank(self) -> dict[str, torch.Tensor]:
        """A row in which nothing is learned, for a worker that has none left."""
        ids = torch.zeros(2, dtype=torch.long)
        labels = torch.full((2,), -100)
        tensors = {"input_ids": ids, "segment_lengths": torch.tensor([2]), "labels": labels}
        sample = Prepared("blank", 0, 0, tensors, 0)
        return row_tensors(Row([sample], 2, 0), self.model.config.vision.patch_dim)

    def precision(self) -> AbstractContextManager[Any]:
        """Where one process computes in half precision; several have FSDP2 do it."""
        if self._half and self.world.size == 1:
            return torch.autocast(self.world.device.type, torch.bfloat16)
        return nullcontext()

    def _clip(self) -> float:
        from model.training.world import whole

        norm = torch.nn.utils.clip_grad_norm_(self.learning.values(), self.stage.clip or math.inf)
        return float(whole(norm))

    def _set_rates(self, progress: float) -> dict[str, float]:
        scale = factor(progress, self.stage.warmup, self.stage.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * scale
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def _stop(self, rows: Sequence[Row[Prepared]], loss: float, norm: float) -> None:
        mine = [sample.name for row in rows for sample in row.samples]
        names = [name for theirs in self.world.gathered(mine) for name in theirs]
        shown = "; ".join(names[:20]) + (f"; and {len(names) - 20} more" if len(names) > 20 else "")
        raise UserError(
            f"stage {self.stage.name}, step {self.step + 1}: loss {loss}, gradient norm {norm}; nothing was "
            f"changed by it. Lower the learning rate, or take out what is bad among: {shown}"
        )

    def _told(
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
        counts = self.world.sums(
            [
                len(samples),
                sum(sample.tokens for sample in samples),
                sum(sample.labelled for sample in samples),
                sum(sample.patches for sample in samples),
                len(ready.rows),
            ]
        )
        number, tokens, labelled, patches, rows = (int(count) for count in counts)
        skipped = [name for names in self.world.gathered(ready.skipped) for name in names]
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
        """Write a checkpoint, and delete those before the last few."""
        lanes = {number: lane for part in self.world.gathered(self._lanes) for number, lane in part.items()}
        state = replace(self._state, step=self.step, given=self.given, lanes=lanes)
        checkpoints.save(self.folder, self.learning, self.optimizer, state, self.world)
        if self.world.leads:
            checkpoints.retain(self.folder, self.recipe.keep_last)

    def close(self) -> None:
        """Let go of the loader's threads."""
        self.loader.close()
