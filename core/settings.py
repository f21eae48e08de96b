"""The base class of what users write in recipes: frozen pydantic models that refuse unknown keys."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from core.errors import UserError, suggest


class Settings(BaseModel):
    """Settings from a mapping. Errors do not quote values, which may be secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, written: Any) -> Any:
        if isinstance(written, cls):
            return written
        keys = [field.alias or name for name, field in cls.model_fields.items()]
        if not isinstance(written, dict):
            raise UserError(f"must be a mapping with {', '.join(keys)}")
        for key in written:
            if key not in keys:
                raise UserError(f"unknown key {key!r}{suggest(str(key), keys)}")
        return written


S = TypeVar("S", bound=Settings)


def parse(kind: type[S], written: object, where: str) -> S:
    """Return settings that were loaded from YAML or come from the command line; `where` names them in errors.

    Raises:
        UserError: They are not valid; the message names the key.
    """
    try:
        return kind.model_validate(written)
    except ValidationError as error:
        raise UserError(f"{where}: {problem(error)}") from error


def problem(error: ValidationError, skip: int = 0) -> str:
    """Return the first problem as `key: what is wrong`; `skip` is the number of outer keys that are left out."""
    first = error.errors()[0]
    keys = [f"[{key}]" if isinstance(key, int) else f": {key}" for key in first["loc"][skip:]]
    reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{''.join(keys)}: {reason}".removeprefix(": ")


_REASONS = {"dict_type": "must be a mapping", "tuple_type": "must be a list", "missing": "is missing"}
