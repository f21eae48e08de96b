"""The columns of the stage, as rules of a recipe see them."""

from __future__ import annotations

import pytest

from core.errors import UserError
from pipeline.recipe import parse_recipe


def _parse(**keep: float) -> None:
    stage = {"stage": "download", "keep": keep}
    parse_recipe({"pool": {"urls": "list.csv"}, "stages": [stage, {"stage": "hashes"}]}, "r")


def test_rule_may_name_any_status_of_http() -> None:
    """Some servers answer 999; `http.client` takes three digits."""
    _parse(max_http_status=999)
    with pytest.raises(UserError, match="1000"):
        _parse(max_http_status=1000)
