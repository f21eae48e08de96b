"""What each stage of a recipe reads, opened as training opens it, and its model without weights."""

from __future__ import annotations

from dataclasses import dataclass

from model.config import ModelConfig
from model.processor import Processor
from model.training.data.prepare import for_stage
from model.training.data.sampler import MixtureSampler
from model.training.held_out import open_held_out
from model.training.param_groups import parameter_groups
from model.training.recipe import TrainRecipe, with_absolute_paths
from model.training.run import open_sampler, open_sources, warn_unused
from model.training.stage import Stage
from model.training.start import configure_start
from model.videollama3 import VideoLLaMA3


@dataclass(frozen=True, eq=False)
class StagePlan:
    """A stage, ready to read.

    Attributes:
        recipe: The whole recipe.
        number: Number of the stage, from 1.
        stage: The stage.
        sampler: Its order of samples.
        processor: The processor with the stage's settings.
        config: The configuration of the model.
    """

    recipe: TrainRecipe
    number: int
    stage: Stage
    sampler: MixtureSampler
    processor: Processor
    config: ModelConfig

    def model_without_weights(self) -> VideoLLaMA3:
        """Return the model on the `meta` device; `requires_grad` says what learns.

        Raises:
            UserError: A pattern or a parameter is unmatched, or adapters do not fit.
        """
        from model.training.lora import add_adapters

        model, stage = VideoLLaMA3(self.config, "meta"), self.stage
        if stage.lora:
            add_adapters(model, stage.lora)
        parameter_groups(model.named_parameters(), stage.learning_rates, stage.weight_decay)
        return model


def plan_stages(recipe: TrainRecipe) -> list[StagePlan]:
    """Open all sources of a recipe, and the processor that it starts with. No weights are read.

    Raises:
        UserError: A source is missing or none of its samples can be read, or the starting model's folder has no valid
            configuration or tokenizer.
    """
    recipe = with_absolute_paths(recipe)
    sources = open_sources(recipe)
    open_held_out(recipe)
    warn_unused(recipe)
    config, processor = configure_start(recipe.model)
    plans = []
    for number, stage in enumerate(recipe.stages, 1):
        processor = for_stage(processor, stage)  # an export has the settings of its stage
        plans.append(StagePlan(recipe, number, stage, open_sampler(recipe, number, sources), processor, config))
    return plans
