"""The model stages from the command line, one after the other, on a machine without a hub."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import run_here

Call = Callable[..., subprocess.CompletedProcess[str]]
Command = Callable[..., Any]


@pytest.fixture
def command(here: None, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command, and its jobs, in this process; its JSON, or its text."""
    from pipeline.commands.app import app

    def call(*arguments: object) -> Any:
        app([str(argument) for argument in arguments], standalone_mode=False)
        output = capsys.readouterr().out
        return json.loads(output) if "--json" in arguments else output

    return call


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, photographs: list[Path]) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for path in photographs[:12]:
        shutil.copy(path, folder)
    whole = (folder / photographs[0].name).read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def indexed(engine: str, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the pool without stages."""
    url = tmp_path_factory.mktemp("indexed") / "run"
    run_here({"name": "t", "pool": {"images": str(pool)}}, url)
    return url


@pytest.mark.slow
def test_run_is_built_up_filter_by_filter(tmp_path: Path, pool: Path, command: Command) -> None:
    """Offline: labels, similarity by ConSE, quality; each command computes what it needs and nothing again."""
    run = tmp_path / "run"
    command("index", "--images", pool, "--run", run)
    with pytest.raises(ValueError, match="has no captions to compare with: run `vl3syn caption coarse`"):
        command("filter", "similarity", "--run", run, "--encoder", "conse")
    done = command("caption", "labels", "--run", run, "--json")
    assert computed(done) == [("conse", 13, 1), ("label_caption", 12, 0)]
    done = command("filter", "similarity", "--run", run, "--top", "0.5", "--json")
    assert computed(done) == [("conse", 0, 0), ("conse_text", 12, 0), ("similarity", 12, 0)]
    assert done["funnel"]["survivors"] == 6
    done = command("filter", "similarity", "--run", run, "--top", "0.75", "--json")
    assert [job["computed"] for job in done["jobs"]] == [0, 0, 0]
    assert done["funnel"]["survivors"] == 9
    with pytest.raises(ValueError, match=r"trained on ViT-L-14/openai and the embeddings are by conse-efflite0-minilm"):
        command("filter", "aesthetic", "--run", run, "--min", "5")
    done = command("filter", "quality", "--run", run, "--min", "0.3", "--json")
    assert computed(done) == [("quality", 9, 0)]

    assert "error: undecodable: " in command("explain", run, "torn.png")
    assert "coarse_caption" in command("explain", run, "coffee.png")
    spread = command("sweep", run, "--json")
    assert {"label_probability", "similarity", "alt_similarity", "quality"} <= {row["column"] for row in spread}
    points = command("sweep", run, "similarity.top=0.25,0.5", "quality.min=0", "--json")
    assert [point["kept"] for point in points] == [3, 6]

    with pytest.raises(ValueError, match=r"has no clusters, .*`vl3syn cluster` first"):
        command("dedup", "--run", run)
    with pytest.raises(ValueError, match="give --clusters"):
        command("cluster", "--run", run)
    done = command("cluster", "--run", run, "--clusters", 3, "--per-group", 2, "--order", "closest", "--json")
    assert computed(done) == [("conse", 0, 0), ("clusters (training)", 9, 0), ("clusters", 9, 0)]
    seen = command("groups", run, "--json")
    assert (seen["reached"]["rows"], seen["reached"]["groups"]) == (9, 3)
    assert seen["kept"]["largest"] <= 2
    assert "effective" in command("groups", run, "--by", "label")
    options = ("--max-similarity", 0.95, "--min-phash-distance", 5, "--per-group", 1, "--order", "closest")
    done = command("dedup", "--run", run, *options, "--json")
    assert computed(done) == [("conse", 0, 0), ("clusters", 0, 0), ("hashes", 9, 0), ("duplicates", 9, 0)]
    assert done["funnel"]["survivors"] == 3
    assert [s["dropped"] for s in done["funnel"]["stages"] if s["stage"] == "clusters"] == [0], "its rule has moved"
    points = command("sweep", run, "duplicates.per_group_cluster=1,2", "--json")
    assert [point["kept"] for point in points] == [3, seen["kept"]["rows"]]
    done = command("cluster", "--run", run, "--clusters", 2, "--json")
    assert computed(done) == [("conse", 0, 0), ("clusters (training)", 9, 0), ("clusters", 9, 0)]
    command("filter", "host", "--run", run)  # behind duplicates, which has rules on clusters that nobody has computed
    done = command("cluster", "--run", run, "--clusters", 3, "--json")
    assert computed(done) == [("conse", 0, 0), ("clusters", 0, 0)], "what was found with 3 clusters is found again"


def test_captions_and_similarity_from_local_checkpoints(
    tmp_path: Path, pool: Path, command: Command, tiny_clip: Path, tiny_blip2: Path
) -> None:
    run = tmp_path / "run"
    command("index", "--images", pool, "--run", run)
    options = ("--model", tiny_blip2, "--max-new-tokens", 3, "--prompt", "a photo of")
    assert computed(command("caption", "coarse", "--run", run, *options, "--json")) == [("coarse_caption", 13, 1)]
    with pytest.raises(ValueError, match="has no embeddings yet: give --encoder, such as ViT-L-14/openai"):
        command("filter", "similarity", "--run", run)
    done = command("filter", "similarity", "--run", run, "--encoder", tiny_clip, "--json")
    assert computed(done) == [("clip", 12, 0), ("clip_text", 12, 0), ("similarity", 12, 0)]
    (account,) = command("explain", run, "coffee.png", "--json")
    facts = {stage["stage"]: stage["facts"] for stage in account["stages"]}
    assert isinstance(facts["coarse_caption"]["coarse_caption"], str)
    assert -1 <= facts["similarity"]["similarity"] <= 1


def computed(done: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(job["stage"], job["computed"], job["errors"]) for job in done["jobs"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caption", "coarse", "--model", "/nowhere/blip"], "/nowhere/blip is not a model folder"),
        (["caption", "coarse"], "hf download Salesforce/blip2-opt-2.7b"),
        (["filter", "aesthetic"], "hf download timm/vit_large_patch14_clip_224.openai"),
        (["filter", "aesthetic", "--predictor", "laion-v3"], "predictor: Input should be 'laion-v1' or 'laion-v2'"),
        (["filter", "aesthetic", "--min", "0.5"], "aesthetic runs from 1 to 10"),
        (["filter", "nsfw", "--max", "2"], "nsfw runs from 0 to 1"),
        (["filter", "quality", "--top", "0"], "a fraction above 0 and up to 1"),
    ],
)
def test_missing_model_is_an_error_and_leaves_the_run_unchanged(
    tmp_path: Path, indexed: Path, vl3syn: Call, arguments: list[str], message: str
) -> None:
    url = Path(shutil.copytree(indexed, tmp_path / "run"))
    recipe = (url / "recipe.yaml").read_text()
    done = vl3syn(*arguments, "--run", url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr
    assert (url / "recipe.yaml").read_text() == recipe


def test_coyo_metadata_is_filtered_before_download(tmp_path: Path, command: Command) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 40
    table = pa.table(
        {
            "id": list(range(1000, 1000 + rows)),
            "url": [f"https://example.org/{n}.jpg" for n in range(rows)],
            "text": ["words"] * rows,
            "width": [400 + 20 * n for n in range(rows)],
            "height": [400] * rows,
            "aesthetic_score_laion_v2": [3 + n / 10 for n in range(rows)],
            "clip_similarity_vitb32": [0.3] * rows,
            "watermark_score": [n / rows for n in range(rows)],
            "nsfw_score_opennsfw2": [0.1] * rows,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=16)
    recipe = tmp_path / "coyo.yaml"
    text = Path("recipes/coyo.yaml").read_text()
    before_download, _, _ = text.partition("  - stage: download\n")
    recipe.write_text(before_download.replace("coyo/*.parquet", f"{tmp_path}/*.parquet"))
    done = command("run", recipe, "--run", tmp_path / "run", "--json")
    stages = {stage["stage"]: stage for stage in done["funnel"]["stages"]}
    assert done["funnel"]["rows"] == rows
    assert stages["aspect_ratio"]["dropped"] == 9, "400 + 20n > 2.5 × 400 from n = 31 on"
    assert stages["coyo"]["reasons"] == {"coyo_aesthetic < 4.5": 15}
    (account,) = command("explain", tmp_path / "run", "1020", "--json")
    assert account["stages"][1]["facts"]["coyo_aesthetic"] == pytest.approx(5)
    (point,) = command("sweep", tmp_path / "run", "coyo.max_coyo_watermark=0.5", "--json")
    assert point["kept"] == 6
    with pytest.raises(ValueError, match="the pool has only their URLs: put the stage `download` before it"):
        command("caption", "labels", "--run", tmp_path / "run")
