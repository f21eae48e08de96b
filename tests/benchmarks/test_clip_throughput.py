"""The GPU benchmark: images per second and GPU of the stage `clip` with ViT-L/14, printed, not judged."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_images_per_second_and_gpu_with_vit_l_14() -> None:
    command = [sys.executable, "benchmarks/clip_throughput.py", "--architecture", "ViT-L-14", "--images", "20000"]
    done = subprocess.run([*command, "--repeat", "1", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    (seconds,), (idle,) = printed["pipeline_s"], printed["idle"]
    print(f"\n{printed['rows'] / seconds:,.0f} images/s, encoder idle {idle:.0%}; {printed['machine']}")
    assert printed["rows"] == 20_000
    assert printed["least_cosine"] > 0.98, "loop and pipeline see the same pictures, in half precision"
