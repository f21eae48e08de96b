"""Publications as tars: `webdataset` and `datasets` open them, whatever the formats and whatever is missing."""

from __future__ import annotations

import io
import json
import math
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from manifests import open_run
from manifests.shards import CONVERSATIONS, IMAGE
from manifests.storage import Folder
from manifests.tar_shards import write_tar
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.runs import jobs_here, run

ROWS = 40
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def picture(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20 + number, 240), (number * 6, 90, 90)).save(data, FORMATS[number % len(FORMATS)])
    return data.getvalue()


def pool(folder: Path, rows: int = ROWS, name: str = "a") -> Path:
    """A Parquet file of mixed formats; few rows have an alt text or scores, as on the web."""
    some = [number % 8 == 7 for number in range(rows)]
    table = {
        "image": pa.array([picture(number) for number in range(rows)], pa.binary()),
        "alt_text": [f"alt text {number}" if present else None for number, present in enumerate(some)],
        "watermark_score": pa.array([0.25 if present else None for present in some], pa.float64()),
        "aesthetic_score_laion_v2": pa.array([5.5 if present else math.nan for present in some], pa.float64()),
        "num_faces": pa.array([3 if present else None for present in some], pa.int64()),
        "image_phash": [f"{number:016x}" if present else None for number, present in enumerate(some)],
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return folder


def recipe(folder: Path, url: str, **how: Any) -> dict[str, Any]:
    caption = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": url}}
    return {
        "pool": {"parquet": f"{folder}/*.parquet"},
        "stages": [{"stage": "coyo"}, caption],
        "publish": {"format": "webdataset", "rows_per_shard": 15, **how},
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, vl3syn: Callable[..., subprocess.CompletedProcess[str]]) -> Path:
    """A publication, by the command line."""
    folder = tmp_path_factory.mktemp("tars")
    with chat_server() as server, jobs_here():
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(pool(folder / "pool"), server.url)))
        done = vl3syn("run", folder / "recipe.yaml", "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run" / "shards"


def facts(out: Path) -> dict[str, dict[str, Any]]:
    """Alt text, size and scores of each image as they must come out, by its key in the pool."""
    index = open_run(str(out.parent)).index.scan().select("key", "alt_text", "width").collect()
    return {
        key: {"alt_text": alt or "", "width": width, "coyo_faces": 3 if alt else None, "coyo_watermark": alt and 0.25}
        for key, alt, width in index.iter_rows()
    }


def check(rows: Any, out: Path) -> None:
    """Every row with its picture and the right values of the right types."""
    right, seen = facts(out), set()
    for row in rows:
        values = row["json"]
        key = values["source_key"]
        seen.add(key)
        assert row["jpg"].size == (20 + int(key), 240)
        assert {name: values[name] for name in right[key]} == right[key]
        assert values["coyo_aesthetic"] == (5.5 if values["alt_text"] else None)
        assert [turn["from"] for turn in values["conversations"]] == ["human", "gpt"]
        assert values["conversations"][1]["value"] == values["short_caption"]
        assert values["format"] == FORMATS[int(key) % len(FORMATS)]
    assert seen == right.keys()
    assert len(seen) == ROWS


def test_datasets_opens_tars_by_their_card(shards: Path, tmp_path: Path) -> None:
    import datasets

    rows = datasets.load_dataset(str(shards), split="train", cache_dir=str(tmp_path))
    check(rows, shards)
    assert rows.column_names == ["jpg", "json", "__key__", "__url__"]
    types = {name: str(rows.features["json"][name].dtype) for name in ("id", "coyo_watermark", "coyo_faces", "license")}
    assert types == {"id": "int64", "coyo_watermark": "float32", "coyo_faces": "int32", "license": "string"}


def test_webdataset_decodes_every_image_of_tars(shards: Path) -> None:
    import webdataset

    tars = sorted(str(file) for file in shards.glob("data/*.tar"))
    check(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"), shards)


def test_json_in_tars_is_read_by_every_parser(shards: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    names = []
    for path in shards.glob("data/*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                names.append(member.name.partition(".")[2])
                if member.name.endswith(".json"):
                    json.loads(tar.extractfile(member).read(), parse_constant=refuse)  # type: ignore[union-attr]
    assert names == ["jpg", "json"] * ROWS


def test_datasets_opens_tars_without_a_card(tmp_path: Path) -> None:
    """It takes the types from the first five rows, so no text, list or turn is null there."""
    import datasets

    schema = pa.schema(
        {
            "id": pa.int64(),
            "image": IMAGE,
            "alt_text": pa.string(),
            "tags": pa.list_(pa.string()),
            "conversations": CONVERSATIONS,
            "score": pa.float64(),
            "parts": pa.list_(pa.float32()),
        }
    )
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    rows = [
        {
            "id": number,
            "image": {"bytes": picture(number), "path": f"{number}.{FORMATS[number % 6].lower()}"},
            "alt_text": "some" if number > 7 else None,
            "tags": ["a"],
            "conversations": turns,
            "score": (0.5, math.nan, math.inf, -math.inf, None)[number % 5],
            "parts": [1.0, math.nan] if number % 2 else [2.0],
        }
        for number in range(12)
    ]
    write_tar(Folder.at(str(tmp_path)), "data/shard-00000.tar", schema, iter([pa.Table.from_pylist(rows, schema)]))
    loaded = datasets.load_dataset(
        "webdataset", data_files=f"{tmp_path}/data/*.tar", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [row["json"]["alt_text"] for row in loaded] == [""] * 8 + ["some"] * 4
    assert [row["json"]["score"] for row in loaded] == [(0.5, None, None, None, None)[n % 5] for n in range(12)]
    assert [row["json"]["parts"] for row in loaded] == [[1.0, None] if n % 2 else [2.0] for n in range(12)]
    assert [row["jpg"].size[0] for row in loaded] == [20 + number for number in range(12)]


@pytest.mark.usefixtures("here")
def test_publication_of_first_version_tars_keeps_their_form(tmp_path: Path) -> None:
    """A publication that an earlier version began: its settings say nothing of the ending of images."""
    folder, out = pool(tmp_path / "pool", 6), tmp_path / "out"
    with chat_server() as server:
        settings = recipe(folder, server.url, rows_per_shard=6)
        opened, _ = run(settings, tmp_path / "run")
        how = Publish.model_validate(settings["publish"])
        publish(opened, recipe_of(opened), how, Folder.at(out), str(out))
        begun = out / ".publication" / "settings.json"
        begun.write_text(json.dumps({k: v for k, v in json.loads(begun.read_text()).items() if k != "image_ending"}))
        (out / "data/shard-00000.tar").unlink()
        pool(folder, 9, "b")
        grown, _ = run(settings, tmp_path / "run")
    done = publish(grown, recipe_of(grown), how, Folder.at(out), str(out))
    assert (done.rows, done.written) == (15, 3)
    endings = {"JPEG": "jpg", "TIFF": "tif"}
    for path in out.glob("data/*.tar"):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            for image, name in zip(names[::2], names[1::2], strict=True):
                row = json.loads(tar.extractfile(name).read())  # type: ignore[union-attr]
                format_ = row["format"]
                assert image == f"{row['id']}.{endings.get(format_, format_.lower())}"
                assert row["alt_text"] is None or row["alt_text"].startswith("alt text")
    assert "features:" not in (out / "README.md").read_text()
