"""`vl3syn schema`: the JSON schema of recipes, with which editors complete and check them."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import Any

import typer

schema_app = typer.Typer()


@schema_app.command()
def schema() -> None:
    """Print the JSON schema of recipes; `# yaml-language-server: $schema=FILE` in a recipe lets editors use it."""
    from pipeline.commands import output

    output.print_json(recipe_schema())


def recipe_schema() -> dict[str, Any]:
    """Return the schema of recipes (JSON Schema, draft 2020-12). Stages of other packages are valid by their path."""
    from pipeline.pools.registry import POOLS
    from pipeline.recipe import Publish
    from pipeline.stages.registry import stage_names

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of vl3syn",
        "type": "object",
        "required": ["pool"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "description": "Name of the run and of the dataset."},
            "pool": {"oneOf": [*(_pool(name, kind) for name, kind in POOLS.items()), _OUTSIDE_POOL]},
            "stages": {"type": "array", "items": {"oneOf": [*map(_stage, stage_names()), _OUTSIDE]}},
            "publish": {"anyOf": [_of_class(Publish), {"type": "null"}]},
            "vl3syn": {"type": "string", "description": "The version that wrote a run's recipe."},
        },
    }


_KEEP = {
    "type": ["object", "null"],
    "description": "Rules on stored columns: `max: 2.5` on the stage's first column, `min_side: 200` on another one.",
    "patternProperties": {"^(min|max|top|per_group|total)(_.+)?$": {"type": "number"}},
    "properties": {"order": {"type": "string"}, "seed": {"type": "integer", "minimum": 0}},
    "additionalProperties": False,
}
_OUTSIDE = {
    "type": "object",
    "description": "A stage of another package: `stage: my_package.scores:Sharpness`.",
    "required": ["stage"],
    "anyOf": [
        {"properties": {"stage": {"type": "string", "pattern": ":"}}},
        {"properties": {"class": {"type": "string", "pattern": ":"}}, "required": ["class"]},
    ],
}

_OUTSIDE_POOL = {
    "type": "object",
    "description": "A pool of another package: `kind: my_package.pools:Zips`.",
    "required": ["kind", "where"],
    "properties": {"kind": {"type": "string", "pattern": ":"}, "where": {"type": "string"}},
}


def _pool(name: str, kind: type[Any]) -> dict[str, Any]:
    described = _of_class(kind)
    options = {key: field for key, field in described["properties"].items() if key not in ("kind", "where")}
    where = {"type": "string", "description": described["description"]}
    return {**described, "properties": {name: where, **options}, "required": [name]}


def _stage(name: str) -> dict[str, Any]:
    from pipeline.recipe import Resources
    from pipeline.stages.registry import stage_class

    kind = stage_class(name)
    described = _of_class(kind)
    keys = {"stage": {"const": name}, "keep": _KEEP, "resources": _of_class(Resources), "table": {"type": "string"}}
    return {**described, "properties": {**keys, **described["properties"]}, "required": _required(described)}


def _required(described: dict[str, Any]) -> list[str]:
    return ["stage", *described.get("required", [])]


def _of_class(kind: type[Any]) -> dict[str, Any]:
    """Return the schema of a configuration class, with descriptions from its docstring."""
    described: dict[str, Any] = kind.model_json_schema()
    described["description"] = cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    texts = attribute_docs(kind)
    described["properties"] = {
        name: field | ({"description": texts[name]} if name in texts else {})
        for name, field in described.get("properties", {}).items()
    }
    return described


def attribute_docs(kind: type[Any]) -> dict[str, str]:
    """Return the texts of the `Attributes:` sections of a class and its bases, by attribute."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, section = cleandoc(base.__dict__.get("__doc__") or "").partition("\nAttributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts
