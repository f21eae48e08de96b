"""The kinds of training sources: built-in ones by their first key, others by the path of their class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from core.errors import UserError
from core.plugins import class_at, is_path
from model.training.data.annotations import AnnotationConfig
from model.training.data.records import RecordConfig
from model.training.data.shards import ShardConfig
from model.training.data.source import SourceConfig

SOURCES: dict[str, type[SourceConfig]] = {
    "shards": ShardConfig,
    "annotations": AnnotationConfig,
    "records": RecordConfig,
}

_OF_OTHERS = {
    "shards": {"annotations", "media", "roots", "records"},
    "annotations": {"shards", "caption", "records"},
    "records": {"shards", "caption", "annotations"},
}
"""Keys of the other kinds, which are ignored: recipes of earlier runs have all of them."""


def read_source(written: object) -> SourceConfig:
    """Return the settings of a source from a recipe's mapping; settings are returned unchanged.

    Raises:
        UserError: It is not clear which kind it is, or there is no such class.
        ValidationError: A setting is invalid.
    """
    if isinstance(written, SourceConfig):
        return written
    if not isinstance(written, Mapping):
        return SourceConfig.model_validate(written)  # raises
    if "kind" in written:
        path = str(written["kind"])
        if not is_path(path):
            raise UserError(f"kind: {path}: give the path of a class, package.module:Class")
        settings = {key: value for key, value in written.items() if key != "kind"}
        kind: type[SourceConfig] = class_at(path, SourceConfig)
        return kind.model_validate(settings)
    keys = [key for key in SOURCES if written.get(key) is not None]
    if len(keys) != 1:
        raise UserError(
            "give one of `shards: DIR`, `annotations: FILE` and `records: DIR`, or `kind: package.module:Class`"
        )
    if "shards" in keys and written.get("roots"):
        raise UserError("roots: shards hold their images: leave it out")
    settings = {key: value for key, value in written.items() if key not in _OF_OTHERS[keys[0]]}
    return SOURCES[keys[0]].model_validate(settings)


def write_source(source: SourceConfig) -> dict[str, Any]:
    """Return the mapping that `read_source` reads."""
    kind = type(source)
    named = {} if kind in SOURCES.values() else {"kind": f"{kind.__module__}:{kind.__qualname__}"}
    return {**named, **source.model_dump(mode="json")}


_OUTSIDE = {
    "type": "object",
    "description": "A source of another package: `kind: my_package.sources:MySource`.",
    "required": ["kind"],
    "properties": {"kind": {"type": "string", "pattern": ":"}},
}

AnySource = Annotated[
    SourceConfig,
    BeforeValidator(read_source),
    PlainSerializer(write_source),
    WithJsonSchema({"anyOf": [*(source.model_json_schema() for source in SOURCES.values()), _OUTSIDE]}),
]
"""The type of an entry of `sources` in a training recipe."""
