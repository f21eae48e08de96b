"""`auto`: files that make a format certain, ties, and formats that need an option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_source
from tests.model.training.data.importers.published.fixtures import PUBLISHED


def written(folder: Path, name: str) -> Path:
    """Write the fixture of a format; return its file or folder."""
    folder.mkdir(exist_ok=True)
    return PUBLISHED[name].write(folder, PUBLISHED[name].rows)


def test_folder_of_two_certain_formats_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "flickr30k-entities")
    written(tmp_path, "chart-to-text")
    with pytest.raises(UserError, match="it may be chart-to-text or flickr30k-entities: name the format"):
        sniff(tmp_path)


def test_folder_of_coco_may_hold_captions_and_nothing_else(tmp_path: Path) -> None:
    said = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "A cup."}]}
    written(tmp_path, "coco")
    (tmp_path / "captions_train2017.json").write_text(json.dumps(said))
    assert sniff(tmp_path).name == "coco"
    (tmp_path / "other.json").write_text('{"images": [{"file_name": "a"}], "annotations": [[1]]}')
    with pytest.raises(UserError, match="no known format"):
        sniff(tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"images": [], "annotations": []},
        {"images": 7, "annotations": [{"image_id": 1}]},
        {"images": [{"file_name": "a"}]},
        {"images": [{"file_name": "a"}], "annotations": [{"id": 1}]},
        {
            **{str(number): [] for number in range(100)},
            "images": [{"file_name": "a"}],
            "annotations": [{"image_id": 1}],
        },
    ],
)
def test_json_that_only_resembles_coco_is_not_certain(tmp_path: Path, value: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="no known format"):
        sniff(tmp_path / "a.json")


def test_tar_of_masks_is_sa_1b_and_other_boxes_are_not(tmp_path: Path) -> None:
    assert sniff(written(tmp_path / "sa", "sa-1b")).name == "sa-1b"
    (tmp_path / "a.json").write_text('{"image": {"file_name": "a.jpg"}, "annotations": [{"bbox": [0, 0, 1, 1]}]}')
    with pytest.raises(UserError, match="no known format"):
        sniff(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("format_", "names"),
    [
        ("queryd", ("raw_captions_combined_filtered.pkl", "times_captions_combined_filtered.pkl")),
        ("refcoco", ("refs(unc).p", "instances.json")),
    ],
)
def test_pickles_are_recognised_and_refused_with_advice(tmp_path: Path, format_: str, names: tuple[str, str]) -> None:
    (tmp_path / "set").mkdir()
    for name in names:
        (tmp_path / "set" / name).write_bytes(b"\x80\x04N.")
    assert sniff(tmp_path / "set").name == format_
    with pytest.raises(UserError, match=r"can run code and (is|are) not read"):
        import_source(format_, tmp_path / "set")


def test_parquet_of_films_is_told_by_its_columns_alone(tmp_path: Path) -> None:
    pq.write_table(pa.table({"mp4": [b"film"], "json": ["no JSON"]}), tmp_path / "a.parquet")
    assert sniff(tmp_path / "a.parquet").name == "finevideo"
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"a\.parquet"):
        sniff(tmp_path / "a.parquet")


@pytest.mark.parametrize(("name", "option"), [("mdvp", "pictures"), ("visual-genome", "images")])
def test_format_that_needs_an_option_is_named_not_passed_over(tmp_path: Path, name: str, option: str) -> None:
    (tmp_path / "media").mkdir()
    source, options = PUBLISHED[name].write_rows(tmp_path)
    PUBLISHED[name].write_media(tmp_path / "media", tmp_path)
    with pytest.raises(UserError, match=f"it looks like {name}, but none of its first rows .* no size of the picture"):
        sniff(source, {key: value for key, value in options.items() if key != option})
    assert sniff(source, options).name == name


ASKED = {"question": "Is there a red apple on the table?", "answer": "no"}
ABOUT_MEDIA = [
    {"1238592": {"imageId": "2407890", **ASKED}},  # GQA
    [{"id": 0, "video_id": 0, **ASKED}],  # MSRVTT-QA, whose first film is 0
    [{"question_id": "Interaction_T1_0", "video_id": "6H78U", "start": 11.1, "end": 19.6, "choices": [], **ASKED}],
    [{"gif_name": "tumblr_no00", **ASKED}],
    [{"videoName": "v_a", **ASKED}],
    [{"IMAGE_ID": 7, **ASKED}],
]


@pytest.mark.parametrize("value", ABOUT_MEDIA)
def test_questions_about_media_are_no_chat_of_text(tmp_path: Path, value: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"no known format, its rows have the keys .*: name one of"):
        sniff(tmp_path / "a.json")


@pytest.mark.parametrize(
    "more", [{"image_id": None}, {"has_image": False}, {"num_images": 0}, {"intermediate_steps": "a"}, {"imagined": 1}]
)
def test_questions_without_media_stay_a_chat_of_text(tmp_path: Path, more: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps([ASKED | more]))
    assert sniff(tmp_path / "a.json").name == "chat"
    imported = import_source("chat", tmp_path / "a.json")
    assert (len(imported.records), imported.report.is_clean) == (1, True)
