"""Parameter groups with their learning rates, from a stage's ordered patterns over parameter names.

`{"vision": 2.0e-6, "projector": 1.0e-5, "language": frozen}`. The first pattern that matches from the start of a name
decides. Unmatched patterns or parameters raise: others have trained for weeks with a head that they believed frozen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from core.errors import UserError

Group = dict[str, Any]
"""An optimiser's group: `params`, `lr`, `weight_decay`; `peak` is the unscaled rate, `name` the pattern."""


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], rates: Mapping[str, float | str], weight_decay: float
) -> list[Group]:
    """Group parameters by pattern, and set `requires_grad` of each.

    Args:
        parameters: Names and parameters, each once: `model.named_parameters()`.
        rates: Peak learning rate, or `frozen`, by pattern.
        weight_decay: Weight decay of matrices. Parameters with fewer than 2 dimensions get 0.

    Raises:
        UserError: A pattern or a parameter is unmatched, or everything is frozen.
    """
    patterns = {pattern: re.compile(pattern) for pattern in rates}
    matched: dict[str, list[nn.Parameter]] = {pattern: [] for pattern in rates}
    for name, parameter in parameters:
        matching = next((pattern for pattern, regex in patterns.items() if regex.match(name)), None)
        if matching is None:
            raise UserError(f"learning_rates: no pattern matches {name}: add one with a rate, or with `frozen`")
        parameter.requires_grad_(rates[matching] != "frozen")
        matched[matching].append(parameter)
    if empty := [pattern for pattern, names in matched.items() if not names]:
        raise UserError(f"learning_rates: {empty[0]!r} matches no parameter that an earlier one has not; take it out")
    groups = []
    for pattern, members in matched.items():
        rate = rates[pattern]
        if isinstance(rate, str):
            continue
        for decays in (True, False):
            params = [p for p in members if (p.ndim >= 2) == decays]
            decay = weight_decay if decays else 0.0
            if params:
                groups.append({"params": params, "lr": rate, "peak": rate, "weight_decay": decay, "name": pattern})
    if not groups:
        raise UserError("learning_rates: everything is frozen: give a part a rate")
    return groups
