"""The whole chain on one Ray with small checkpoints: every image once through the tower, bad rows alone lost."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from PIL import Image

from filters.clip import Clip, ImageTower
from manifests import funnel, open_run
from pipeline.execution.index import open_pool
from pipeline.execution.index_job import build_index
from pipeline.execution.runner import check_models, prepare, run_stages
from pipeline.recipe import parse_recipe
from pipeline.stages.registry import stage_class
from tests.runs import run, run_here, run_stages_on_ray

pytestmark = pytest.mark.usefixtures("engine")


def noise(number: int, width: int = 70, height: int = 70) -> bytes:
    """A small JPEG like no other."""
    pixels = np.random.default_rng(number).integers(0, 255, (height // 10, width // 10, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR).save(data, "JPEG", quality=80)
    return data.getvalue()


def save_noise(folder: Path, images: int) -> Path:
    """Every tenth is 2:1."""
    for number in range(images):
        (folder / f"{number:04d}.jpg").write_bytes(noise(number, width=140 if number % 10 == 0 else 70))
    return folder


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images."""
    return save_noise(tmp_path_factory.mktemp("pool"), 300)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images: a part, which takes one worker."""
    return save_noise(tmp_path_factory.mktemp("few"), 60)


def chain(pool: object, clip: Path, blip: Path, ratio: float = 1.5, **settings: Any) -> dict[str, Any]:
    counted = {"stage": "clip", "encoder": str(clip), "precision": "float32", **settings}
    return {
        "pool": pool if isinstance(pool, dict) else {"images": str(pool)},
        "stages": [
            {"stage": "aspect_ratio", "keep": {"max": ratio}},
            counted,
            {"stage": "coarse_caption", "model": str(blip), "max_new_tokens": 4},
            {"stage": "clip_text", "encoder": str(clip), "precision": "float32"},
            {"stage": "similarity", "keep": {"top": 0.5}},
        ],
    }


@pytest.mark.thorough
def test_clip_encodes_each_surviving_image_once_in_a_run(
    tmp_path: Path, few: Path, tiny_clip: Path, tiny_blip: Path, counted: None
) -> None:
    log = tmp_path / "log"
    recipe = chain(few, tiny_clip, tiny_blip, log=str(log))
    _, jobs = run_stages_on_ray({**recipe, "stages": recipe["stages"][:2]}, tmp_path / "run")
    assert jobs["clip"].computed == 54
    assert jobs["aspect_ratio"].idle is None
    assert 0 <= (jobs["clip"].idle or 0) <= 1
    assert (jobs["clip"].rate or 0) >= jobs["clip"].computed / jobs["clip"].seconds, "without the start of the model"
    opened, jobs = run_here(recipe, tmp_path / "run")
    assert seen(log) == Counter({picture: 1 for picture in seen(log)})
    assert len(seen(log)) == 54, "the images that passed the aspect ratio, and no others"
    assert [job.computed for job in jobs.values()] == [0, 0, 0, 54, 54, 54]
    again = Path(shutil.copytree(tmp_path / "run", tmp_path / "again"))
    _, jobs = run(chain(few, tiny_clip, tiny_blip, ratio=1.2, log=str(log)), again)
    assert [job.computed for job in jobs.values()] == [0] * 6

    counted_ = funnel(opened)
    assert (counted_.rows, counted_.survivors) == (60, 27)
    assert counted_.stages[-1].reasons == {"similarity not in the top 50 %": 27}
    manifest = opened.manifest().filter(pl.col("aspect_ratio") <= 1.5).collect()
    assert manifest["similarity"].is_between(-1, 1).all()
    assert manifest["coarse_caption"].null_count() == 0
    assert "image_embedding" not in manifest.columns, "manifests stay small"
    stored = opened.facts("clip").collect()
    assert stored["image_embedding"].dtype == pl.Array(pl.Float16, 64)
    assert manifest["similarity"].head(20).to_numpy() == pytest.approx(
        cosines(few, tiny_clip, manifest.head(20)), abs=5e-3
    )


def cosines(pool: Path, clip: Path, manifest: pl.DataFrame) -> Any:
    """Of images and captions, by open_clip alone."""
    import open_clip
    import torch

    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{clip}")
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(pool / key)) for key in manifest["key"]])
        images = network.eval().encode_image(pixels, normalize=True)
        texts = network.encode_text(tokenize(manifest["coarse_caption"].to_list()), normalize=True)
    return (images * texts).sum(1).numpy()


@pytest.mark.slow
def test_killed_worker_loses_only_its_two_current_parts(
    tmp_path: Path, pool: Path, tiny_clip: Path, tiny_blip: Path, counted: None
) -> None:
    log = tmp_path / "log"
    recipe = chain(pool, tiny_clip, tiny_blip, ratio=9, log=str(log), slow=0.05)
    recipe["stages"] = recipe["stages"][:2]
    recipe["stages"][1]["resources"] = {"actors": 2, "batch_size": 8, "part_rows": 20}

    def kill_one() -> None:
        while not log.exists() or log.read_text().count("\n") < 100:
            time.sleep(0.01)
        os.kill(int(log.read_text().split("\n")[-2].split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    opened, _ = run(recipe, tmp_path / "run")
    killer.join()
    assert funnel(opened).survivors == 300
    assert len(seen(log)) == 300
    assert 0 < seen(log).total() - 300 <= 2 * 20


@pytest.mark.slow
def test_resumed_run_encodes_no_image_twice(
    tmp_path: Path, pool: Path, tiny_clip: Path, tiny_blip: Path, counted: None
) -> None:
    """The model breaks after some images; what was stored until then is never computed again."""
    log = tmp_path / "log"
    recipe = chain(pool, tiny_clip, tiny_blip, ratio=9, log=str(log), breaks=str(tmp_path / "broken"))
    recipe["stages"] = recipe["stages"][:2]
    recipe["stages"][1]["resources"] = {"actors": 1, "batch_size": 8, "part_rows": 20}
    (tmp_path / "broken").touch()
    with pytest.raises(Exception, match="on purpose"):
        run(recipe, tmp_path / "run")
    stored = open_run(tmp_path / "run").facts("clip").collect().height
    assert 60 <= stored <= 300 - 40
    before = seen(log)
    (tmp_path / "broken").unlink()
    opened, jobs = run(recipe, tmp_path / "run")
    assert jobs["clip"].computed == 300 - stored
    assert seen(log).total() - before.total() == 300 - stored
    assert funnel(opened).survivors == 300


@pytest.mark.usefixtures("here")
def test_bad_images_cost_only_their_rows(tmp_path: Path, few: Path) -> None:
    folder = Path(shutil.copytree(few, tmp_path / "pool"))
    bad = sorted(folder.iterdir())[5::4]
    assert len(bad) == 14
    for number, file in enumerate(bad):
        whole = file.read_bytes()
        file.write_bytes(whole[:-200] if number % 2 else whole[:-600] + b"\0" * 100)
    expected = set()
    for file in sorted(folder.iterdir()):
        try:
            Image.open(file).load()
        except OSError:
            expected.add(file.name)
    assert len(expected) >= 14 - 1
    stages = [{"stage": "hashes"}, {"stage": "aspect_ratio", "keep": {"max": 9}}]
    recipe = {"pool": {"images": str(folder)}, "stages": stages}
    opened, jobs = run(recipe, tmp_path / "run")
    assert jobs["hashes"].errors == len(expected)
    failed = opened.manifest().filter(pl.col("status") == "error").collect()
    assert set(failed["key"]) == expected
    assert failed["drop_stage"].unique().to_list() == ["hashes"]
    assert failed["drop_reason"].str.starts_with("undecodable: OSError image file is truncated").all()
    counted_ = funnel(opened)
    assert [stage.errors for stage in counted_.stages] == [0, len(expected), 0]
    assert counted_.stages[-1].seen == 60 - len(expected)
    _, jobs = run(recipe, tmp_path / "run")
    assert [job.computed for job in jobs.values()] == [0] * 3, "bad bytes do not get better"


@pytest.mark.usefixtures("here")
def test_image_that_could_not_be_read_is_retried(tmp_path: Path, few: Path) -> None:
    folder = Path(shutil.copytree(few, tmp_path / "pool"))
    stage = {"stage": "hashes"}
    checked = parse_recipe({"pool": {"images": str(folder)}, "stages": [stage]}, "test")
    opened = prepare(checked, str(tmp_path / "run"))
    build_index(opened, checked.pool, open_pool(checked.pool, str(tmp_path / "run")), lambda text: None)
    (folder / "0007.jpg").rename(tmp_path / "away.jpg")
    (done,) = run_stages(opened, checked)
    assert (done.computed, done.errors) == (60, 1)
    (tmp_path / "away.jpg").rename(folder / "0007.jpg")
    (done,) = run_stages(opened, checked)
    assert (done.computed, done.errors) == (1, 0)


@pytest.mark.slow
def test_run_on_tars_in_s3_equals_a_local_run(tmp_path: Path, pool: Path, tiny_clip: Path, bucket: str) -> None:
    import torch
    from pyarrow import fs as pafs

    files = sorted(pool.iterdir())[:90]
    remote, root = pafs.FileSystem.from_uri(bucket)
    for number in range(3):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w") as archive:
            for file in files[number::3]:
                archive.add(file, file.name)
        with remote.open_output_stream(f"{root}/clip/{number}.tar") as stream:
            stream.write(path.read_bytes())
    clip, head = {"stage": "clip", "encoder": str(tiny_clip)}, tmp_path / "head.pth"
    torch.save({"weight": torch.linspace(-1, 1, 64)[None], "bias": torch.tensor([5.0])}, head)
    score = {"stage": "aesthetic", "predictor": "laion-v1", "weights": str(head), "encoder": str(tiny_clip)}
    local, _ = run({"pool": {"tars": str(tmp_path / "*.tar")}, "stages": [clip, score]}, tmp_path / "run")
    remote_run, _ = run({"pool": {"tars": f"{bucket}/clip/*.tar"}, "stages": [clip, score]}, f"{bucket}/clip-run")
    assert local.manifest().collect()["aesthetic"].is_between(3, 7).all()
    assert remote_run.manifest().collect().equals(local.manifest().collect())
    one, other = (opened.facts("clip").collect().sort("id").drop("retry") for opened in (local, remote_run))
    assert one["id"].equals(other["id"])
    assert np.array_equal(one["image_embedding"].to_numpy(), other["image_embedding"].to_numpy())


@pytest.mark.slow
def test_other_weights_at_the_same_path_are_refused(
    tmp_path: Path, pool: Path, tiny_clip: Path, tiny_blip: Path
) -> None:
    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(tiny_clip, tmp_path / "model"))
    recipe = chain(pool, model, tiny_blip, ratio=1.5)
    recipe["stages"] = recipe["stages"][:2]
    run(recipe, tmp_path / "run")
    weights = load_file(model / "open_clip_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, model / "open_clip_model.safetensors")
    recipe["stages"][0]["keep"] = {"max": 9}
    with pytest.raises(ValueError, match=r"clip: what is stored was computed with weights \w{12}…, not \w{12}…; res"):
        run(recipe, tmp_path / "run")


@pytest.mark.parametrize("broken", ["gone", "cut off", "not a number"])
def test_missing_or_broken_model_ends_the_run_within_seconds(
    tmp_path: Path, pool: Path, tiny_clip: Path, tiny_blip: Path, broken: str
) -> None:
    model = Path(shutil.copytree(tiny_blip, tmp_path / "model"))
    weights = model / "model.safetensors"
    if broken == "gone":
        shutil.rmtree(model)
    elif broken == "cut off":
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        weights.write_bytes(b"\xff" * 100)
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=f"coarse_caption: .*{model}"):
        check_models(parse_recipe(chain(pool, tiny_clip, model), "test"), str(tmp_path / "run"))
    assert time.perf_counter() - begin < 10
    assert not (tmp_path / "run").exists(), "before anything is written"


def seen(log: Path) -> Counter[str]:
    """How often the tower saw each picture."""
    return Counter(line.split()[1] for line in log.read_text().splitlines())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """`clip` in recipes of this module writes down what goes through its tower."""
    counted_stages = {"clip": CountedClip}
    monkeypatch.setattr("pipeline.recipe_file.stage_class", lambda name: counted_stages.get(name) or stage_class(name))


class CountedClip(Clip):
    """CLIP whose image tower writes a line for each picture that goes forward through it."""

    reads: ClassVar = ("image",)
    log: str
    slow: float = 0.0
    breaks: str | None = None

    def load(self) -> ImageTower:
        import hashlib

        tower = super().load()

        def note(module: Any, inputs: tuple[Any, ...]) -> None:
            time.sleep(self.slow)
            pictures = [hashlib.md5(row.numpy().tobytes()).hexdigest() for row in inputs[0].float().cpu()]
            with Path(self.log).open("a") as log:
                log.write("".join(f"{os.getpid()} {picture}\n" for picture in pictures))
            if self.breaks and Path(self.breaks).exists() and seen(Path(self.log)).total() > 150:
                raise TypeError("on purpose")

        tower._model.network.visual.register_forward_pre_hook(note)
        return tower
