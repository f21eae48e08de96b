"""Chart-to-Text: folders of captions, titles, data tables and images, with a number for each chart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.regions import choice_of
from model.training.data.importers.turns import assistant, image, text_of, user
from model.training.data.importers.whole_files import row_of_texts

_ENDINGS = (".png", ".jpg", ".jpeg")


def rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield the charts of all folders `captions`: statista_dataset/dataset, its multiColumn, pew_dataset/dataset."""
    folders = [folder for folder in sorted(source.rglob("captions")) if folder.is_dir() and not folder.is_symlink()]
    files = [file for folder in folders for file in sorted(folder.glob("*.txt"), key=lambda file: _order(file.stem))]
    if not files:
        raise UserError(f"{source}: no captions/*.txt in it: give the folder of statista_dataset and pew_dataset")
    for file in files:
        chart, name = file.parents[1], file.stem
        images = [chart / "imgs" / f"{name}{ending}" for ending in _ENDINGS]
        shown = next((path for path in images if path.exists()), images[0])
        texts = {"caption": file, "title": chart / "titles" / file.name, "table": chart / "data" / f"{name}.csv"}
        others = {"image": str(shown.relative_to(source)), "subset": str(chart.relative_to(source))}
        yield row_of_texts(texts, others, str(file.relative_to(source)), name)


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of a chart: its caption, or its table."""
    entry = row.entry
    make = choice_of(options, "make", "caption", "table")
    shown = image(entry["image"])
    title = text_of(entry, "title", "").strip()
    question = "Describe the chart." if make == "caption" else "Give the data of the chart as CSV."
    asked = f"\n{question} Its title: {title}" if title else f"\n{question}"
    answer = assistant(text_of(entry, make).strip())
    task = "chart_caption" if make == "caption" else "chart_table"
    subset = text_of(entry, "subset")
    yield Draft([user(shown, asked), answer], [shown], original_id=row.key, subset=subset, task=task)


def _recognises(source: Path) -> bool:
    folders = (folder for folder in source.rglob("captions") if folder.is_dir() and not folder.is_symlink())
    return any((folder.parent / "titles").is_dir() and any(folder.glob("*.txt")) for folder in folders)


def _order(name: str) -> tuple[int, str]:
    return (int(name) if name.isascii() and name.isdigit() else 0, name)


FORMAT = Format(
    name="chart-to-text",
    about="Chart-to-Text: charts of Statista and Pew with captions and tables",
    read=read,
    fits=lambda entry: False,
    rows=rows,
    recognises=_recognises,
    profiles=(Profile("chart-to-text"),),
    options={"make": "caption (default), or table: the chart's data"},
)
