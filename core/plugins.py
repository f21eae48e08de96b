"""Load classes of other packages that a recipe names by their path."""

from __future__ import annotations

import importlib
from typing import TypeVar

from core.errors import UserError

Base = TypeVar("Base")


def is_path(name: str) -> bool:
    """Return whether a name is the path of a class, `package.module:Class`."""
    return ":" in name


def class_at(path: str, base: type[Base]) -> type[Base]:
    """Import and return the class at `package.module:Class`. Importing the module runs its code.

    Raises:
        UserError: There is no such module or class, or it is not a subclass of `base`.
    """
    module, _, attribute = path.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        missing = f"{path}: no module {error.name}"
        raise UserError(f"{missing}: install its package, or put its folder on PYTHONPATH") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UserError(f"{path}: {module} has no class {attribute} made from {base.__module__}.{base.__qualname__}")
    return kind
