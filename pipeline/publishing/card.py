"""Write the dataset card of a publication, in Hugging Face's form (README.md).

The card has no value that differs between two calls, such as a date: publishing again leaves the file unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from core.text import code_block, code_span, markdown, printable
from manifests.funnel import Funnel, funnel
from manifests.removals import Takedown
from manifests.run import Run
from manifests.schemas import is_amount
from manifests.verdict import Verdict
from manifests.version import __version__
from pipeline.publishing.card_update import removed_section, size_category
from pipeline.publishing.ocr_captions import card_section


class Code(str):
    """A table cell that is formatted as code."""

    __slots__ = ()


_BARS = "▁▂▃▄▅▆▇█"
_BINS = 16
_PRIVATE = ("engine", "resources", "table", "fitted", "images", "allow", "proxies", "user_agent")
"""Keys of a recipe that are private, or of no use to a reader."""

_LIMITS = """\
- The captions are written by models (see above) and not checked by people: they may name what is not there, miss what
  is, and repeat the prejudices of their training data.
- The images are other people's, collected from the web or wherever the pool came from. Their licences are theirs: the
  column `license` has what the source told, if it told anything.
- Faces, names, number plates and other personal data have not been looked for; a score for unsafe content is only there
  if the funnel has a stage for it, and no filter finds everything.
- Rules look at scores of models; what they turned away and why is in the run's manifest, not here."""


def card(
    run: Run,
    subsets: Mapping[str, Sequence[str]],
    format_: str,
    rows: int,
    columns: Mapping[str, str],
    models: Mapping[str, Mapping[str, str | None]],
    features: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    sizes: Mapping[str, int] | None = None,
    with_text: int | None = None,
    takedowns: Sequence[Takedown] = (),
) -> str:
    """Return the text of README.md.

    Args:
        run: The run that is published.
        subsets: The captions of each subset, by name.
        format_: `parquet` or `webdataset`.
        rows: Number of images in shards.
        columns: The description of each column.
        models: The models of each stage, with their licences (`core.stages.Stage.models`).
        features: The columns of each subset as `datasets` needs them declared, if its files do not declare them.
        sizes: The length of each shard in bytes, by its path in the dataset.
        with_text: Number of images in the subset `ocr`; None without that subset.
        takedowns: What was removed on request.
    """
    verdict = run.verdict()
    counted = funnel(run, verdict)
    name = card_name(run)
    parts = [
        f"---\n{_front(run, name, subsets, format_, rows, features or {}, sizes or {})}---",
        f"# {markdown(name)}",
        f"{rows:,} images with captions, chosen out of {counted.rows:,} by vl3syn {__version__}, which follows "
        "VL3-Syn7M (VideoLLaMA 3, [arXiv 2501.13106](https://arxiv.org/abs/2501.13106), section 2.3).",
        "## How to open it",
        _opening(subsets, format_, bool(features)),
        "## What is in a row",
        table(("column", "what it says"), [(Code(column), doc) for column, doc in columns.items()]),
        *([] if with_text is None else ["## The subset `ocr`", card_section(run, with_text)]),
        "## How it was chosen",
        funnel_table(counted),
        "## Models",
        table(("stage", "model", "revision or weights", "licence"), model_rows(run, models)),
        "## Scores of the images that are kept",
        table(("column", "smallest", "median", "largest", "how they are spread"), _spreads(run, verdict, columns)),
        "## Recipe",
        code_block(recipe_text(run), "yaml"),
        removed_section(takedowns),
        "## Known limits",
        _LIMITS,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def card_name(run: Run) -> str:
    """Return the name of the dataset, as one line of visible characters."""
    return " ".join(printable(str(run.recipe.get("name") or "dataset")).split()) or "dataset"


def _front(
    run: Run,
    name: str,
    subsets: Mapping[str, Sequence[str]],
    format_: str,
    rows: int,
    features: Mapping[str, Sequence[Mapping[str, Any]]],
    sizes: Mapping[str, int],
) -> str:
    ending = "tar" if format_ == "webdataset" else "parquet"
    languages = {e["language"] for e in run.recipe.get("stages") or [] if "language" in e} or {"en"}
    front = {
        "license": "other",
        "language": sorted(languages),
        "task_categories": ["image-to-text"],
        "size_categories": [size_category(rows)],
        "tags": ["vl3syn", "synthetic-captions", "videollama3"],
        "configs": [
            {"config_name": subset, "data_files": [{"split": "train", "path": f"{subset}/*.{ending}"}]}
            for subset in subsets
        ],
    }
    front["dataset_info"] = [
        {"config_name": subset, **content(run, subset, sizes)}
        | ({"features": list(features[subset])} if subset in features else {})
        for subset in subsets
    ]
    # Always quoted: for a simple reader, a name that ends in three dashes would end the front matter.
    pretty_name = json.dumps(name, ensure_ascii=False)
    return f"pretty_name: {pretty_name}\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}"


def content(run: Run, subset: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return what tells the shards of a subset from those of an earlier publication, and from those of another run.

    `datasets` caches a local folder by its name and the card's front matter only. A number of rows would make it refuse
    the subset if one image is in the other subset only.
    """
    shards = sorted((name, size) for name, size in sizes.items() if name.startswith(f"{subset}/"))
    digest = hashlib.sha256(json.dumps([run.folder.path, shards]).encode()).hexdigest()[:16]
    total = sum(size for _, size in shards)
    return {"description": f"{len(shards)} shards, content {digest}", "download_size": total}


def _opening(subsets: Mapping[str, Sequence[str]], format_: str, declared: bool) -> str:
    subset = next(iter(subsets))
    library = "from datasets import load_dataset\n"
    if format_ == "parquet":
        return (
            f"```python\n{library}"
            f'load_dataset("parquet", data_files="{subset}/*.parquet", split="train")[0]["image"]\n\n'
            "import polars as pl\n"
            f'pl.scan_parquet("{subset}/*.parquet").drop("image").collect()\n'
            "```"
        )
    shard = f'"{subset}/shard-00000.tar"'
    loop = f"import webdataset\nfor row in webdataset.WebDataset({shard}).decode('pil'):\n    …\n"
    if not declared:
        return f"```python\n{loop}```"
    return (
        f'```python\n{library}load_dataset("path/of/this/folder", "{subset}", split="train")[0]["jpg"]\n\n{loop}```\n\n'
        "The ending of a member names a column, not a format: `jpg` is the image as it came, whatever its `format`, "
        "and `json` has all other columns. There a missing text is empty, and null is a number that is missing or not "
        "finite."
    )


def funnel_table(counted: Funnel) -> str:
    """Return what each stage saw and kept, and why others left, as a table in Markdown."""
    rows = []
    for s in counted.stages:
        reasons = sorted(s.reasons.items(), key=lambda reason: -reason[1])
        rows.append((s.stage, s.seen, s.kept, "; ".join(f"{n:,} {why}" for why, n in reasons)))
    return table(("stage", "seen", "kept", "why the others left"), rows)


def model_rows(run: Run, models: Mapping[str, Mapping[str, str | None]]) -> list[tuple[str, str, str, str]]:
    """Return stage, model, revision or weights, and licence of each model.

    Args:
        run: The run.
        models: The models of each stage, with their licences.
    """
    lines = []
    for stage, entry in zip(run.stages, run.recipe.get("stages") or [], strict=True):
        version = entry.get("revision") or str(stage.table.provenance().get("weights") or "")[:16] or "not told"
        if any(provenance.get("trust_remote_code") for provenance in stage.table.provenances().values()):
            version = f"{version}, with Python code of its own"
        for model, licence in models.get(stage.name, {}).items():
            lines.append((stage.name, _plain(model), _plain(str(version)), licence or "see the model's page"))
    return lines


def _plain(value: Any) -> Any:
    """Return a setting; of a path only the last part, since the rest describes the machine."""
    is_path = isinstance(value, str) and value.startswith(("/", ".", "~"))
    return value.rstrip("/").rpartition("/")[2] if is_path else value


def _spreads(run: Run, verdict: Verdict, published: Container[str]) -> list[tuple[Code, str, str, str, str]]:
    lines = []
    for stage in run.stages:
        for field in stage.table.writes:
            if not is_amount(field) or field.name not in published:
                continue
            column = stage.table.scan(["id", field.name]).collect(engine="streaming")
            values = column.join(verdict.alive, on="id", how="semi")[field.name].drop_nulls().to_numpy()
            values = values[np.isfinite(values)]
            if len(values):
                low, middle, high = (f"{value:.4g}" for value in (values.min(), np.median(values), values.max()))
                lines.append((Code(field.name), low, middle, high, bars(values)))
    return lines


def bars(values: Any) -> str:
    """Draw a histogram of finite numbers as a line of 16 characters, from the smallest to the largest number."""
    counts, _ = np.histogram(values, _BINS)
    heights = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)


def recipe_text(run: Run) -> str:
    """Return the stages of a run's recipe as YAML, without what is private."""
    stages = [
        {key: _plain(value) for key, value in entry.items() if key not in _PRIVATE and value not in (None, {})}
        for entry in run.recipe.get("stages") or []
    ]
    return yaml.safe_dump({"stages": stages}, sort_keys=False, allow_unicode=True, width=100)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown. Numbers get thousands separators, and a `Code` is formatted as code."""
    lines = [[_cell(value) for value in line] for line in (columns, *rows)]
    lines.insert(1, ["---"] * len(columns))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return code_span(value) if isinstance(value, Code) else markdown(str(value))
