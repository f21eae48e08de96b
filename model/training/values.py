"""The base class of the parts of a training recipe, and the types of their fields. Imports no torch: sources use it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from core.paths import check_path

PathText = Annotated[str, AfterValidator(check_path)]
"""A path or URL: not empty, without a NUL."""


class Value(BaseModel):
    """Base class of the parts of a recipe: frozen, and unknown keys raise."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)
