"""The stage `ocr`: text at its place, whatever the orientation; nothing where there is none; the union of boxes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner, Result

from core.ocr import Line, Reader
from filters.ocr import Ocr, _TextReader, covered, language_of, thousandths
from manifests import open_run
from manifests.run import Run
from pipeline.commands.app import app
from tests.runs import jobs_here, run_here

SIZE = (640, 480)
SIGNS = {"Please mind the step": (40, 30), "Exit on the left": (300, 330)}
FONT = ImageFont.load_default(28)


def page() -> Image.Image:
    drawn = Image.new("RGB", SIZE, "white")
    for text, place in SIGNS.items():
        ImageDraw.Draw(drawn).text(place, text, fill="black", font=FONT)
    return drawn


def places() -> list[Any]:
    """The box of each text of the page, in thousandths."""
    draw = ImageDraw.Draw(page())
    return [thousandths(draw.textbbox(place, text, font=FONT), SIZE) for text, place in SIGNS.items()]


def encoded(image: Image.Image, orientation: int = 1) -> bytes:
    """A PNG that is upright only after its EXIF orientation, 1 or 6, is applied."""
    turn = {6: Image.Transpose.ROTATE_90}.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    (image if turn is None else image.transpose(turn)).save(data, "PNG", exif=exif)
    return data.getvalue()


def vl3syn(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def iou(one: Any, other: Any) -> float:
    left, top, right, bottom = (
        max(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        min(one[3], other[3]),
    )
    both = max(0, right - left) * max(0, bottom - top)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return both / (sum(areas) - both)


@pytest.fixture(scope="module")
def run(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over a sign that is upright only by its EXIF orientation, a grey picture, and three broken files."""
    pytest.importorskip("rapidocr")
    folder = tmp_path_factory.mktemp("ocr")
    (folder / "pool").mkdir()
    whole = encoded(page(), orientation=6)
    (folder / "pool/sign.png").write_bytes(whole)
    (folder / "pool/cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "pool/bomb.png").write_bytes(whole[:16] + b"\0\1\0\0\0\1\0\0" + whole[24:])
    (folder / "pool/text.png").write_bytes(b"no image")
    Image.new("RGB", (64, 64), "grey").save(folder / "pool/grey.png")
    stages = [{"stage": "ocr", "keep": {"min_text_share": 0.01}}]
    with jobs_here():
        run_here({"pool": {"images": str(folder / "pool")}, "stages": stages}, folder / "run")
    return open_run(folder / "run")


def facts(run: Run, key: str) -> dict[str, Any]:
    ids = run.manifest(["key"]).filter(pl.col("key") == key).select("id")
    (row,) = run.facts("ocr").join(ids, on="id", how="semi").collect().to_dicts()
    return row


def test_text_is_found_at_its_place(run: Run) -> None:
    row = facts(run, "sign.png")
    assert row["ocr_texts"] == list(SIGNS)
    assert [iou(*pair) >= 0.5 for pair in zip(row["ocr_boxes"], places(), strict=True)] == [True, True]
    assert (row["text_lines"], row["text_characters"]) == (2, sum(map(len, SIGNS)))
    assert row["text_share"] == pytest.approx(covered(row["ocr_boxes"]))
    assert row["text_confidence"] == pytest.approx(sum(row["ocr_confidences"]) / 2)
    assert row["text_language"] == "en"


class TwoLines(Reader):
    """Reads a clear line below a doubtful one in every picture."""

    def __init__(self) -> None:
        self.provenance = {}

    def lines(self, image: Image.Image) -> list[Line]:
        return [Line("doubtful", (0, 0, 320, 48), 0.69), Line("clear", (0, 240, 640, 288), 0.7)]


@pytest.mark.parametrize(("least", "texts", "share"), [(0.5, ["doubtful", "clear"], 0.15), (0.7, ["clear"], 0.1)])
def test_doubtful_lines_are_left_out(least: float, texts: list[str], share: float) -> None:
    read = _TextReader(TwoLines(), least)([page()])
    assert read.schema.equals(Ocr.writes, check_metadata=True)
    (row,) = read.to_pylist()
    assert (row["ocr_texts"], row["text_lines"], row["text_share"]) == (texts, len(texts), pytest.approx(share))


def test_image_without_text_has_empty_lists_and_share_0(run: Run) -> None:
    row = facts(run, "grey.png")
    assert (row["text_share"], row["text_lines"], row["text_confidence"], row["text_language"]) == (0, 0, None, None)
    assert row["ocr_texts"] == row["ocr_boxes"] == row["ocr_confidences"] == []


def test_run_conserves_rows_and_keeps_images_with_text(run: Run) -> None:
    manifest = run.manifest().collect()
    outcome = dict(zip(manifest["key"], manifest["status"], strict=True))
    broken = dict.fromkeys(("cut.png", "bomb.png", "text.png"), "error")
    assert outcome == {"sign.png": "kept", "grey.png": "dropped", **broken}
    funnel = run.funnel()
    assert funnel.rows == funnel.survivors + sum(stage.dropped + stage.errors for stage in funnel.stages) == 5
    assert run.facts("ocr").filter(pl.col("error").is_null()).collect().height == 2


def test_commands_show_what_was_read(run: Run) -> None:
    assert "Please mind the step" in vl3syn("explain", run.url, "sign.png", "--json").stdout
    looked = vl3syn("look", run.url, "--where", "text_lines > 0", "--column", "ocr_texts", "--json")
    assert "Please mind the step, Exit on the left" in looked.stdout
    assert "min" in str(vl3syn("filter", "ocr", "--run", run.url, "--min", "2").exception)
    assert vl3syn("report", run.url).exit_code == 0
    assert "text_share" in (Path(run.url) / "report.html").read_text()


def test_filter_has_a_command_with_its_rules() -> None:
    options = vl3syn("filter", "ocr", "--help").stdout
    for option in ("--min-confidence", "--min ", "--max ", "--max-text-lines", "--min-text-characters"):
        assert option in options


_SIDE = st.integers(0, 1000)
_BOXES = st.lists(
    st.tuples(_SIDE, _SIDE, _SIDE, _SIDE).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
    ),
    max_size=6,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(_BOXES)
def test_share_is_that_of_the_union_of_boxes(boxes: list[tuple[int, int, int, int]]) -> None:
    """By inclusion and exclusion."""
    area = 0
    for chosen in range(1, 2 ** len(boxes)):
        some = [box for number, box in enumerate(boxes) if chosen >> number & 1]
        left, top = (max(box[side] for box in some) for side in (0, 1))
        right, bottom = (min(box[side] for box in some) for side in (2, 3))
        sign = 1 if len(some) % 2 else -1
        area += sign * max(0, right - left) * max(0, bottom - top)
    assert covered(boxes) == pytest.approx(area / 1e6)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("EXIT ON THE LEFT", "en"),
        ("Bitte nicht rauchen im Treppenhaus", "de"),
        ("OPEN", None),
        ("1234 5678 9012", None),
    ],
)
def test_language_is_told_where_it_is_certain(text: str, language: str | None) -> None:
    assert language_of(text) == language
