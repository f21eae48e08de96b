"""Which parameters learn, and how fast: ordered patterns over names, as a stage of a recipe has them.

`{"vision": 2.0e-6, "projector": 1.0e-5, "language": frozen}`. The first pattern that matches from the beginning of a
name decides. That a pattern matches nothing, or a parameter nothing, is an error: peers have trained for weeks with a
head that was thought to be frozen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from core.errors import UserError

Group = dict[str, Any]
"""For an optimiser: `params`, `lr`, `weight_decay`; `peak` is the rate that a schedule scales, `name` the pattern."""


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], rates: Mapping[str, float | str], weight_decay: float
) -> list[Group]:
    """Sort parameters by pattern, and say of each whether it wants gradients.

    Args:
        parameters: With their names, each once: `model.named_parameters()`.
        rates: Peak learning rate by pattern, or `frozen`.
        weight_decay: Of matrices.

    Raises:
        UserError: A pattern without a parameter, or the other way round; or nothing learns.
    """
    patterns = {pattern: re.compile(pattern) for pattern in rates}
    matched: dict[str, list[nn.Parameter]] = {pattern: [] for pattern in rates}
    for name, parameter in parameters:
        found = next((pattern for pattern, regex in patterns.items() if regex.match(name)), None)
        if found is None:
            raise UserError(f"learning_rates: no pattern matches {name}: add one with a rate, or with `frozen`")
        parameter.requires_grad_(rates[found] != "frozen")
        matched[found].append(parameter)
    if empty := [pattern for pattern, found_ in matched.items() if not found_]:
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
