"""Lost nodes are looked for only where Ray runs."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from pipeline.execution.lost_nodes import LostNodes


@pytest.mark.parametrize("module", [None, ModuleType("ray")], ids=["not imported", "half imported"])
def test_no_node_is_lost_before_ray_runs(module: ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may be importing Ray at this moment."""
    monkeypatch.setitem(sys.modules, "ray", module)  # type: ignore[arg-type]
    assert list(LostNodes().look()) == []
