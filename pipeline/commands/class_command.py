"""A filter's command, made from its class: an option for each setting, and for rules on each numeric column."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import AsOption, JsonOption, RunOption
from pipeline.commands.stage import apply_stages

if TYPE_CHECKING:
    from core.stages import Stage


def command_of(stage: str, name: str) -> Any:
    """Make the command `name` of a stage, which is called `stage` in recipes."""
    from pipeline.stages.registry import stage_class

    kind = stage_class(stage)
    app = typer.Typer(add_completion=False)
    summary = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    app.command(
        name, help=f"{summary}\n\nA threshold is stored in the run's recipe. Without one, only columns are computed."
    )(_callback(kind))
    return typer.main.get_command(app)


def _callback(kind: type[Stage]) -> Callable[..., None]:
    from pipeline.stages.registry import entry_of

    settings, rules = _setting_options(kind), _rule_options(kind)

    def command(**values: Any) -> None:
        written = {name: _value(name, values[name]) for name in settings if values[name] is not None}
        keep = {rule: values[rule] for rule in rules}
        named = {**entry_of(kind), "as": values["as_"]}
        apply_stages(values["run_"], [{**named, **written, "keep": keep}], values["json_"])

    options = {"run_": RunOption, **settings, **rules, "as_": AsOption, "json_": JsonOption}
    defaults = {"run_": inspect.Parameter.empty, "json_": False}
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=option)
            for name, option in options.items()
        ]
    )
    command.__annotations__ = dict(options)
    return command


def _setting_options(kind: type[Stage]) -> dict[str, Any]:
    """Return an option for each setting; values are YAML, as in a recipe."""
    from pipeline.commands.schema import attribute_docs

    texts = attribute_docs(kind)
    return {
        name: Annotated[str | None, typer.Option(f"--{name.replace('_', '-')}", help=texts.get(name))]
        for name in kind.model_fields
    }


def _rule_options(kind: type[Stage]) -> dict[str, Any]:
    """Return options for rules on numeric columns; `--min`, `--max` and `--top` apply to the first one."""
    from pydantic import ValidationError

    from manifests.schemas import is_amount

    try:
        amounts = [field for field in kind().writes if is_amount(field)]
    except ValidationError:  # a setting without a default is needed to know the columns
        return {}
    options: dict[str, Any] = {}
    for number, field in enumerate(amounts):
        meaning = (field.metadata or {}).get(b"doc", b"").decode()
        for rule in ("min", "max", "top") if not number else ("min", "max"):
            flag = f"--{rule}" if not number else f"--{rule}-{field.name.replace('_', '-')}"
            what = _MEANINGS[rule].format(field.name)
            options[f"{rule}_{field.name}"] = Annotated[float | None, typer.Option(flag, help=f"{what} ({meaning})")]
    return options


_MEANINGS = {
    "min": "Keep rows with {} at least this",
    "max": "Keep rows with {} at most this",
    "top": "Keep this fraction of the rows, largest {} first",
}


def _value(name: str, text: str) -> Any:
    from core.yaml_text import load_yaml

    return load_yaml(text, f"--{name.replace('_', '-')} {reprlib.repr(text)}")
