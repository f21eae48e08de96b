"""Data-Juicer: `dj-process` on a list of files, at the settings that were fastest here.

A process for each core, each with one thread of torch's; `turbo`, since operators with a model take one image at a
time; no cache, which a first run writes and never reads; operators on the same image fused, so that it is decoded once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.contender import Contender, Found
from peers.environments import version
from peers.pool import MOST, Pool
from peers.weights import Weights

PEER = "data-juicer"
RATIO = {"image_aspect_ratio_filter": {"min_ratio": 1 / MOST, "max_ratio": MOST}}
STATISTICS = "__dj__stats__"


def ratios(programs: Path, pool: Pool) -> Contender:
    return _contender(programs, pool, [RATIO], {})


def scores(programs: Path, pool: Pool, weights: Weights) -> Contender:
    # All that is computed is kept, as in our recipe.
    aesthetic = {"hf_scorer_model": str(weights.predictor), "min_score": -100, "max_score": 100}
    similarity = {"hf_clip": str(weights.clip), "min_score": -1, "max_score": 1}
    operators = [RATIO, {"image_aesthetics_filter": aesthetic}, {"image_text_similarity_filter": similarity}]
    # Its aesthetic score is a tenth of ours.
    return _contender(programs, pool, operators, {"image_aesthetics_scores": 10, "image_text_similarity": 1})


def _contender(programs: Path, pool: Pool, operators: Sequence[Any], scales: dict[str, float]) -> Contender:
    settings = {
        "project_name": "peers",
        "dataset_path": str(pool.list),
        "export_path": "kept.jsonl",
        "keep_stats_in_res_ds": True,
        "np": os.cpu_count(),
        "turbo": True,
        "use_cache": False,
        "op_fusion": True,
        "fusion_strategy": "greedy",
        "process": operators,
    }

    def command(folder: Path) -> list[str]:
        (folder / "settings.yaml").write_text(json.dumps(settings))
        return [str(programs / "dj-process"), "--config", "settings.yaml"]

    def found(folder: Path) -> Found:
        return dict(_line(text, scales) for text in (folder / "kept.jsonl").read_text().splitlines())

    return Contender(f"Data-Juicer {version(PEER, 'py-data-juicer')}", command, found, {"OMP_NUM_THREADS": "1"})


def _line(text: str, scales: dict[str, float]) -> tuple[str, tuple[float, ...]]:
    line = json.loads(text)
    statistics = line[STATISTICS]
    if not scales:
        (ratio,) = statistics["aspect_ratios"]
        return Path(line["images"][0]).name, (max(ratio, 1 / ratio),)
    return Path(line["images"][0]).name, tuple(scale * statistics[name][0] for name, scale in scales.items())
