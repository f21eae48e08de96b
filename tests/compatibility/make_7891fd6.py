"""Makes what lies in `written_by_7891fd6/`: a small run, its publication, and a training that was killed on its way.

    git worktree add ../old 7891fd6; cd ../old; python ../vl3syn/tests/compatibility/make_7891fd6.py OUT

It runs the code of the checkout that it is started in, and is kept to tell how the files came to be.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

RECIPE: dict[str, Any] = {
    "name": "small",
    "pool": {"images": "pool"},
    "stages": [
        {"stage": "aspect_ratio", "keep": {"max": 2.0}},
        {"stage": "quality", "keep": {"min": 0.0}},
        {"stage": "conse"},
        {"stage": "hashes", "keep": {"per_group_content_hash": 1}},
        {"stage": "clusters", "clusters": 2, "iterations": 3},
        {"stage": "duplicates", "keep": {"min_phash_distance": 1, "per_group_cluster": 8}},
        {"stage": "short_caption", "model": "m", "keep": {"max_short_cut": 0}},
        {"stage": "detailed_caption", "model": "m"},
    ],
    "publish": {"rows_per_shard": 5},
}
TRAIN: dict[str, Any] = {
    "model": {"preset": "tiny"},
    "save_every": 2,
    "keep_last": 1,
    "sources": {"short": {"shards": "run/shards", "caption": "short"}},
    "stages": [
        {
            "name": name,
            "learning_rates": {"vision": other, "projector": 1e-3, "language": other},
            "mixture": {"short": 1},
            "tokens": 512,
            "visual_tokens": 64,
            "rows": 1,
            "steps": steps,
        }
        for name, steps, other in (("first", 2, 1e-3), ("second", 12, "frozen"))
    ],
}


def picture(number: int) -> Image.Image:
    """A picture that no other number has."""
    image = Image.effect_noise((64 + 4 * number, 72), 20 + 4 * number).convert("RGB")
    ImageDraw.Draw(image).ellipse((4 * number, 8, 40 + 2 * number, 60), fill=(20 * number, 200 - 15 * number, 90))
    return image


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    (out / "pool").mkdir(parents=True)
    for number in range(10):
        picture(number).save(out / f"pool/{number}.{('jpg', 'png', 'webp')[number % 3]}")
    picture(0).resize((400, 40)).save(out / "pool/wide.jpg")
    (out / "pool/broken.jpg").write_bytes((out / "pool/0.jpg").read_bytes()[:60])
    here = {**os.environ, "PYTHONPATH": os.getcwd(), "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen([sys.executable, "-m", "tests.chat_server", "--port", "18437"], env=here)
    time.sleep(3)
    for stage in RECIPE["stages"][-2:]:
        stage["engine"] = {"kind": "server", "url": "http://127.0.0.1:18437/v1"}
    (out / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    (out / "train.yaml").write_text(yaml.safe_dump(TRAIN, sort_keys=False))
    command = [sys.executable, "-m", "pipeline"]
    subprocess.run([*command, "run", "recipe.yaml", "--run", "run"], cwd=out, env=here, check=True)
    server.kill()
    training = subprocess.Popen([*command, "train", "train.yaml", "--run", "training"], cwd=out, env=here)
    while training.poll() is None and not (out / "training/2-second/step-00000004").is_dir():
        time.sleep(0.01)
    training.send_signal(signal.SIGKILL)
    training.wait()
    for partial in (out / "training").rglob(".*"):
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    shutil.rmtree(out / "training/tensorboard", ignore_errors=True)
    for curves in (out / "training").glob("curves.*"):
        curves.unlink()
    shutil.rmtree(out / "training/2-second/step-00000002", ignore_errors=True)  # the kill came while it was deleted
    read = "from manifests import open_run; open_run('run').manifest().collect().write_json('manifest.json')"
    subprocess.run([sys.executable, "-c", read], cwd=out, env=here, check=True)
    for name in ("run/recipe.yaml", "training/recipe.yaml", "training/1-first/model/vl3syn_training.json"):
        (out / name).write_text((out / name).read_text().replace(str(out), "ROOT"))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
