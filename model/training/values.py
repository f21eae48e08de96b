"""The base class of the parts of a training recipe, and the types of their fields. Imports no torch: sources use it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from core.errors import suggest
from core.paths import check_path

PathText = Annotated[str, AfterValidator(check_path)]
"""A path or URL: not empty, without a NUL."""


class Value(BaseModel):
    """Base class of the parts of a recipe: frozen, and unknown keys raise."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, written: Any) -> Any:
        keys = [field.alias or name for name, field in cls.model_fields.items()]
        for key in written if isinstance(written, dict) else ():
            if key not in keys:
                reason = PydanticCustomError("unknown_key", "unknown key{near}", {"near": suggest(str(key), keys)})
                details = InitErrorDetails(type=reason, loc=(str(key),), input=written[key])
                raise ValidationError.from_exception_data(cls.__name__, [details])
        return written
