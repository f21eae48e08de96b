"""`vl3syn schema`: the JSON schema of recipes, with which editors complete and check them."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import Annotated, Any

import typer

schema_app = typer.Typer()


@schema_app.command()
def schema(
    training: Annotated[bool, typer.Option("--training", help="The schema of training recipes")] = False,
) -> None:
    """Print the JSON schema of recipes. With `# yaml-language-server: $schema=FILE` in a recipe, editors check it."""
    from pipeline.commands import output

    output.print_json(training_schema() if training else recipe_schema())


def training_schema() -> dict[str, Any]:
    """Return the schema of training recipes (JSON Schema, draft 2020-12)."""
    from model.training.recipe import TrainRecipe

    return {"$schema": _DRAFT, **_described(TrainRecipe)}


def recipe_schema() -> dict[str, Any]:
    """Return the schema of recipes (JSON Schema, draft 2020-12). Stages of other packages are valid by their path."""
    from pipeline.pools.registry import POOLS
    from pipeline.recipe_file import RecipeFile, StageEntry
    from pipeline.stages.registry import stage_class, stage_names

    recipe = _described(RecipeFile)
    entry = _described(StageEntry)
    stages = {name: _described(stage_class(name)) for name in stage_names()}
    for stage in stages.values():
        recipe["$defs"] |= stage.pop("$defs", {})  # of settings within settings
    entries = [_entry(name, stage, entry["properties"]) for name, stage in stages.items()]
    recipe["$defs"]["StageEntry"] = {"oneOf": [*entries, _OUTSIDE]}
    recipe["$defs"]["Pool"] = {"oneOf": [*(_pool(name, kind) for name, kind in POOLS.items()), _OUTSIDE_POOL]}
    return {"$schema": _DRAFT, **recipe}


_DRAFT = "https://json-schema.org/draft/2020-12/schema"

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
    described = _described(kind)
    options = {key: field for key, field in described["properties"].items() if key not in ("kind", "where")}
    where = {"type": "string", "description": described["description"]}
    return {**described, "properties": {name: where, **options}, "required": [name]}


def _entry(name: str, stage: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an entry of `stages`: the keys of every entry, and the settings of its stage."""
    shared = {key: keys[key] for key in ("as", "keep", "resources", "table")}
    properties = {"stage": {**keys["stage"], "const": name}, **shared, **stage["properties"]}
    return {**stage, "properties": properties, "required": ["stage", *stage.get("required", [])]}


def _described(kind: type[Any]) -> dict[str, Any]:
    """Return the schema of a class, with descriptions from the docstrings of it and of the classes that it contains."""
    from pydantic.json_schema import GenerateJsonSchema

    class Described(GenerateJsonSchema):
        def model_schema(self, schema: Any) -> dict[str, Any]:
            described = super().model_schema(schema)
            described["description"] = cleandoc(schema["cls"].__doc__ or "").partition("\n\n")[0]
            fields = {field.alias or name: name for name, field in schema["cls"].model_fields.items()}
            texts = attribute_docs(schema["cls"])
            for key, setting in described.get("properties", {}).items():
                if text := texts.get(fields[key]):
                    setting["description"] = text
            return described

    return kind.model_json_schema(schema_generator=Described)  # type: ignore[no-any-return]


def attribute_docs(kind: type[Any]) -> dict[str, str]:
    """Return the texts of the `Attributes:` sections of a class and its bases, by attribute."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, section = cleandoc(base.__dict__.get("__doc__") or "").partition("\nAttributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts
