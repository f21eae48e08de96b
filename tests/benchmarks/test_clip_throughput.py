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
    told = json.loads(done.stdout)
    (seconds,), (idle,) = told["pipeline_s"], told["idle"]
    print(f"\n{told['rows'] / seconds:,.0f} images/s, encoder idle {idle:.0%}; {told['machine']}")
    assert told["rows"] == 20_000
    assert told["least_cosine"] > 0.98, "loop and pipeline see the same pictures, in half precision"
