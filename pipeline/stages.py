"""What a stage is, and which there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from manifests.rules import suggest

STAGES = {"aspect_ratio": "filters.aspect_ratio:AspectRatio"}
"""Every stage a recipe can name, imported when it is named."""

Facts = Callable[[pa.Table], pa.Table]
"""What a stage computes with."""


class Stage(Protocol):
    """One small module that computes facts about images; `filters/aspect_ratio.py` is the model.

    A stage is a frozen pydantic model: its fields are the settings that its numbers depend on, and with `version`
    its fingerprint. It knows nothing of Ray, paths or thresholds. It computes in one of two ways:

    * with nothing to load it is itself the callable, `stage(table)`, and runs in plain Ray tasks;
    * else it has a method `load()`, which Ray actors call once each, for example to put a model on a GPU, and which
      returns the callable. A ValueError from it is the user's to mend and ends the run with that one line.

    The callable maps a table of `reads` to one of `writes`, row by row in the same order. A row that fails gets null
    columns and a text in a further column `error` (and `retry` if trying again can help). An exception means that the
    stage itself is broken, and ends the job.

    Attributes:
        name: As recipes write it.
        version: Raised when the same settings begin to give other numbers; old facts then stay aside, unused.
        reads: Columns of the index or of earlier stages.
        writes: Its columns, made with `manifests.schemas.column`; the first is what bare `min`, `max`, `top` mean.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[pa.Schema]

    def model_dump(self, *, mode: str = ...) -> dict[str, Any]: ...


def stage_class(name: str) -> type[Any]:
    """The class of the stage called `name`.

    Raises:
        ValueError: There is none.
    """
    if name not in STAGES:
        raise ValueError(f"unknown stage {name!r}{suggest(name, STAGES)}")
    module, _, attribute = STAGES[name].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), attribute)
    return found
