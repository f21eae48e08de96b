"""Ray that is started here, and a cluster that is joined."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
from core.cluster import connect
connect(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
from ray._common.usage.usage_lib import usage_stats_enabled
print("sends statistics:", usage_stats_enabled())
"""


@pytest.mark.thorough
@pytest.mark.parametrize("given", [None, "1"])
def test_ray_that_is_started_here_sends_no_statistics(given: str | None) -> None:
    """Unless the environment asks for it: the setting is the user's."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_USAGE_STATS_ENABLED")
    }
    environment |= {} if given is None else {"RAY_USAGE_STATS_ENABLED": given}
    not_started = (
        "import ray; ray.init = lambda **_: None; ray.nodes = list; connect("  # a Ray that is started would send
    )
    code = CODE.replace("connect(", not_started, 1) if given else CODE
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert f"sends statistics: {given == '1'}" in done.stdout, done.stderr
