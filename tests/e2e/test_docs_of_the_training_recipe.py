"""docs/training-recipe.md lists every key of a training recipe. As a script this file writes the page.

.venv/bin/python -m tests.e2e.test_docs_of_the_training_recipe
"""

from __future__ import annotations

import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from model.config import LanguageSizes, VisionConfig
from model.prune import Pruning
from model.training.data.annotations import AnnotationConfig
from model.training.data.records import RecordConfig
from model.training.data.shards import ShardConfig
from model.training.recipe import Start, TrainRecipe, parse_recipe
from model.training.stage import Lora, Share, Stage
from pipeline.commands.schema import attribute_docs

PAGE = Path(__file__).parents[2] / "docs/training-recipe.md"

INTRODUCTION = """\
# The keys of a training recipe

This page is made from the classes that read recipes ([recipe.py](../model/training/recipe.py),
[stage.py](../model/training/stage.py)), and a test compares the two:
`.venv/bin/python -m tests.e2e.test_docs_of_the_training_recipe` writes it. What the keys do together stands in
[training.md](training.md), the forms of data in [training-data.md](training-data.md). `vl3syn schema --training` prints
a JSON schema, by which editors complete and check recipes; [`vl3syn mix`](training.md#before-it-costs-money) says what
a training by a recipe will see, before it runs.

```yaml
name: captions
model:
  vision: {hidden_size: 256, intermediate_size: 1024, num_hidden_layers: 6, num_attention_heads: 4}
  language: {hidden_size: 512, intermediate_size: 1536, num_hidden_layers: 8, num_attention_heads: 8}
  tokenizer: weights/my-tokenizer
sources:
  captions: {shards: DATASET, held_out: 200}
  qa: {annotations: qa.jsonl, media: photos, held_out: exam.jsonl}
stages:
  - name: alignment
    learning_rates: {vision: 1.0e-4, projector: 1.0e-3, language: 1.0e-4}
    mixture: {captions: 1, qa: {samples: 20000}}
    epochs: 1
```
"""

SECTIONS: list[tuple[str, str, type[BaseModel]]] = [
    ("The recipe", "", TrainRecipe),
    ("model", "Exactly one of `checkpoint`, `preset`, and `vision` with `language`.", Start),
    ("model: vision, as sizes", "Defaults are those of SigLIP so400m, the published encoder.", VisionConfig),
    (
        "model: language, as sizes",
        "The embedding table gets a row for each token of the tokenizer, rounded up to a multiple of 64. A preset "
        "keeps its own table with the tokenizer that it was made for.",
        LanguageSizes,
    ),
    ("sources: published shards", "", ShardConfig),
    ("sources: annotations", "", AnnotationConfig),
    ("sources: records", "", RecordConfig),
    (
        "stages",
        "A list. Each stage begins with what the one before has made. Defaults are the reference's, where it has any.",
        Stage,
    ),
    ("stages: mixture", "A number, which is a `weight`, or a mapping.", Share),
    ("stages: pruning", "`{}` has the published numbers.", Pruning),
    ("stages: lora", "", Lora),
]

NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", types.NoneType: "null"}


def page() -> str:
    return "\n".join([INTRODUCTION, *(line for section in SECTIONS for line in _section(*section))])


def _section(title: str, text: str, kind: type[BaseModel]) -> list[str]:
    texts = attribute_docs(kind)
    rows = [
        f"| `{field.alias or name}` | {_form(kind, name)} | {_default(field)} | {_cell(texts[name])} |"
        for name, field in kind.model_fields.items()
    ]
    head = ["| key | form | default | meaning |", "| --- | --- | --- | --- |"]
    return [f"## {title}", "", *([text, ""] if text else []), *head, *rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return f"`{json.dumps(value)}`"


def _form(kind: type[BaseModel], name: str) -> str:
    return _named(typing.get_type_hints(kind)[name])


def _named(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(_named, arguments)))
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin is tuple:
        return f"list of {'two ' if Ellipsis not in arguments else ''}{_named(arguments[0])}s"
    if origin is dict:
        return f"{_named(arguments[1])} by name"
    return NAMES.get(hint, "mapping")


def test_page_has_every_key_of_the_classes() -> None:
    assert PAGE.read_text() == page(), "run .venv/bin/python -m tests.e2e.test_docs_of_the_training_recipe"


def test_every_class_of_a_recipe_has_a_section() -> None:
    schema = json.dumps(TrainRecipe.model_json_schema())
    kinds = set(re.findall(r'"#/\$defs/(\w+)"', schema))
    assert kinds == {kind.__name__ for _, _, kind in SECTIONS} - {
        "TrainRecipe",
        "ShardConfig",
        "AnnotationConfig",
        "RecordConfig",
    }


def test_recipe_of_the_page_is_valid() -> None:
    (written,) = re.findall(r"```yaml\n(.*?)```", INTRODUCTION, re.DOTALL)
    assert parse_recipe(yaml.safe_load(written), "page").stages[0].epochs == 1


@pytest.mark.parametrize("kind", [kind for _, _, kind in SECTIONS], ids=lambda kind: kind.__name__)
def test_every_key_has_a_meaning(kind: type[BaseModel]) -> None:
    assert set(kind.model_fields) <= set(attribute_docs(kind))


if __name__ == "__main__":
    PAGE.write_text(page())
