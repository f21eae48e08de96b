"""Write the card of published clips, in Hugging Face's form (README.md): the same each time, as that of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import yaml

from core.text import code_block, markdown
from manifests.funnel import funnel
from manifests.run import Run
from manifests.version import __version__
from pipeline.publishing.card import Code, card_name, content, funnel_table, model_rows, recipe_text, table
from pipeline.publishing.card_update import size_category
from pipeline.publishing.clips.media import MEDIA
from pipeline.publishing.clips.publication import Account, ClipPublication
from pipeline.recipe import Recipe, parse_recipe

_ABOUT = {
    "captions": "descriptions and summaries of a clip, and its events with their times",
    "questions": "open questions, and questions with options, by aspect",
    "grounding": "when an event happens, such as 1.0-2.0 s",
    "stream": "a clip that runs, and each event told when it is over; turns have times",
}

_COLUMNS = {
    "record": "the whole record as JSON: turns, media, spans, choices, provenance; the other columns are made of it",
    "id": "data set, clip and ordinal",
    "original_id": "the film's id, and the span of the clip on its clock in seconds, such as 123:4.000-9.500",
    "task, aspect": "what is practised: caption, dense_caption, qa, qa_mc, grounding, stream",
    "media": "the file of the clip, and where in it the clip starts and ends, in seconds",
    "question, answer": "the first question and the last answer",
    "licence, non_commercial": "licence of the film, as its pool told it",
    "generator": "the model that wrote the answers",
    "num_turns, characters": "number of turns, and of characters in them",
}

_FILMS = {
    "reference": (
        "The films are not in this data set. `media[].path` is relative to the folder of the films, and `start` and "
        "`end` are on the film's clock."
    ),
    "copy": (
        f"The films are in `{MEDIA}/`, a file for each clip. They were cut by copying: a file begins at the last key "
        "frame before its clip. `start` and `end` say where in the file the clip is; `original_id` says where it was "
        "in its film. There is no sound."
    ),
    "encode": (
        f"The films are in `{MEDIA}/`, a file for each clip, encoded again. A file has exactly its clip: `start` and "
        "`end` say where it was in its film. There is no sound."
    ),
}

_LIMITS = """\
- Captions, events, times, questions and answers are written by models (see above) and not checked by people: they may
  name what is not there, miss what is, be seconds off, and repeat the prejudices of their training data.
- The films are other people's. Their licences are theirs: the column `licence` has what the source told.
- Faces, names, number plates and other personal data have not been looked for.
- Rules look at scores of models; what they turned away and why is in the run's manifest, not here."""


def clips_card(
    run: Run,
    recipe: Recipe,
    publication: ClipPublication,
    account: Account,
    published: pl.DataFrame,
    films: Run | None = None,
) -> str:
    """Return the text of README.md.

    Args:
        run: The run of clips.
        recipe: Its recipe.
        publication: The publication.
        account: What its shards hold.
        published: The clips in shards, column `id`.
        films: The run of films; None: it is not known.
    """
    name, total = card_name(run), sum(account.records.values())
    counted = funnel(run, run.verdict())
    runs = [("films", films, None), ("clips", run, recipe)]
    given = [(what, one, own or _recipe_of(one)) for what, one, own in runs if one is not None]
    lines = [line for _, one, own in given for line in model_rows(one, {s.name: s.stage.models for s in own.steps})]
    parts = [
        f"---\n{_front(run, name, publication, account)}---",
        f"# {markdown(name)}",
        f"{total:,} records about {published.height:,} clips of {_films(run, published):,} films, chosen out of "
        f"{counted.rows:,} clips by vl3syn {__version__}. They are conversations to train a video language model on.",
        "## How to open it",
        _opening(publication),
        "## What is in it",
        table(
            ("subset", "records", "what"),
            [(Code(subset), account.records.get(subset, 0), _ABOUT[subset]) for subset in publication.subsets],
        ),
        table(("column", "what it says"), [(Code(name), text) for name, text in _COLUMNS.items()]),
        "## Films",
        _FILMS[publication.films],
        "Times in turns and spans are seconds from the start of the clip.",
        table(("licence of the film", "clips"), sorted(account.licences.items())),
        *(part for what, one, _ in given for part in (f"## How the {what} were chosen", funnel_table(funnel(one)))),
        _left_out(account),
        "## Models",
        table(("stage", "model", "revision or weights", "licence"), lines),
        "## Recipe",
        *(code_block(recipe_text(one), "yaml") for _, one, _ in given),
        "## Known limits",
        _LIMITS,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _recipe_of(run: Run) -> Recipe:
    return parse_recipe(dict(run.recipe), run.url)


def _films(run: Run, clips: pl.DataFrame) -> int:
    """Return the number of films that clips are of."""
    films = run.index.scan(["id", "film_id"]).join(clips.lazy(), on="id", how="semi")
    return int(films.select(pl.col("film_id").n_unique()).collect(engine="streaming").item())


def _front(run: Run, name: str, publication: ClipPublication, account: Account) -> str:
    languages = {e["language"] for e in run.recipe.get("stages") or [] if "language" in e} or {"en"}
    subsets = [subset for subset in publication.subsets if account.records.get(subset)]
    sizes = publication.sizes()
    front: dict[str, Any] = {
        "license": "other",
        "language": sorted(languages),
        "task_categories": ["video-text-to-text"],
        "size_categories": [size_category(sum(account.records.values()))],
        "tags": ["vl3syn", "synthetic-captions", "video"],
        "configs": [
            {"config_name": subset, "data_files": [{"split": "train", "path": f"{subset}/*.parquet"}]}
            for subset in subsets
        ],
        "dataset_info": [{"config_name": subset, **content(run, subset, sizes)} for subset in subsets],
    }
    # Always quoted: for a simple reader, a name that ends in three dashes would end the front matter.
    pretty_name = json.dumps(name, ensure_ascii=False)
    return f"pretty_name: {pretty_name}\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}"


def _opening(publication: ClipPublication) -> str:
    subset = publication.subsets[0]
    media = "FOLDER_OF_THE_FILMS" if publication.films == "reference" else "PATH_OF_THIS_FOLDER"
    sources = _sources(publication.subsets, media)
    return (
        f"```python\nimport json\n\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("PATH_OF_THIS_FOLDER", "{subset}", split="train")\n'
        'json.loads(rows[0]["record"])["turns"]\n```\n\n'
        "vl3syn trains on it as it is:\n\n"
        f"{code_block(sources, 'yaml')}"
    )


def _sources(subsets: Sequence[str], media: str) -> str:
    sources: Mapping[str, Any] = {s: {"records": f"PATH_OF_THIS_FOLDER/{s}", "media": media} for s in subsets}
    return yaml.safe_dump({"sources": sources}, sort_keys=False, width=100)


def _left_out(account: Account) -> str:
    """Return what was kept by the rules and is not in the records, with the reasons."""
    reasons: dict[str, int] = {}
    for reason in account.left_out.values():
        kind = reason.partition(":")[0]
        reasons[kind] = reasons.get(kind, 0) + 1
    rows = [("clips", kind, count) for kind, count in sorted(reasons.items())]
    rows += [("facts", kind, count) for kind, count in sorted(account.rejected.items())]
    return "Left out of the records:\n\n" + table(("what", "why", "count"), rows) if rows else ""
