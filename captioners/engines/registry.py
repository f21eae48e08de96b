"""The available engines: built-in ones by kind, others by the path of their configuration class."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, WithJsonSchema

from captioners.engines.base import EngineConfig
from captioners.engines.lmdeploy import Lmdeploy
from captioners.engines.notes import Notes
from captioners.engines.openai_client import OpenAIClientConfig
from captioners.engines.transformers import Transformers
from core.errors import UserError, suggest
from core.plugins import class_at, is_path

ENGINES: dict[str, type[EngineConfig]] = {
    "server": OpenAIClientConfig,
    "lmdeploy": Lmdeploy,
    "transformers": Transformers,
}
"""The engines that run a model."""

KINDS: dict[str, type[EngineConfig]] = {**ENGINES, "notes": Notes}
"""All engines: `notes` is made of two others."""


def read_engine(written: Any) -> Any:
    """Return the configuration of an engine from a recipe's mapping with `kind`; other values are returned unchanged.

    Raises:
        UserError: The kind is unknown.
        ValidationError: A setting is invalid.
    """
    if not isinstance(written, dict):
        return written
    kind = str(written.get("kind", ""))
    if not is_path(kind) and kind not in KINDS:
        raise UserError(f"kind: unknown engine {kind!r}{suggest(kind, KINDS)}")
    engine = class_at(kind, EngineConfig) if is_path(kind) else KINDS[kind]
    if engine is Notes:
        written = {key: read_engine(value) if key in ("frames", "answers") else value for key, value in written.items()}
    return engine.model_validate(written)


_OUTSIDE = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string", "pattern": ":"}}}

AnyEngine = Annotated[
    SerializeAsAny[EngineConfig],
    BeforeValidator(read_engine),
    WithJsonSchema({"anyOf": [*(engine.model_json_schema() for engine in KINDS.values()), _OUTSIDE]}),
]
"""The type of the field `engine` of a caption stage."""
