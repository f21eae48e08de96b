"""Which facts of a run of clips become records, in which subsets, and who wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from core.errors import UserError
from core.stages import FILM, Stage
from core.text import printable
from manifests.run import Run
from pipeline.execution.job_columns import Columns
from pipeline.publishing.published_columns import stage_entries
from pipeline.recipe import Recipe
from pipeline.recipe_file import PublishClips

TEXTS = ("dense_caption", "detailed_caption", "summary", "short_caption")
"""Columns with a text about a whole clip."""

EVENTS, QUESTIONS, FRAME_TIMES = "events", "questions", "frame_times"

SUBSETS: Mapping[str, Sequence[str]] = {
    "captions": (*TEXTS, EVENTS),
    "questions": (QUESTIONS,),
    "grounding": (EVENTS,),
    "stream": (EVENTS,),
}
"""The columns that each subset is made of; any of them is enough."""

PLACE = ("film_id", "start", "end")
"""Columns of the index of clips that say which piece of which film a clip is."""

_INDEX = ("film_id", "start", "end", "width", "height", "license", "url", "shard", "key")
_UNKNOWN = "unknown"
_PROMPT = "_prompt"
_ALL = 1 << 31  # frames


@dataclass(frozen=True)
class Author:
    """What wrote a fact.

    Attributes:
        model: Name of the model, or of several.
        prompt: The column with the hash of the prompt of each row; empty: there is none.
        most_frames: Most of the stored frames of a clip that it was shown, evenly spaced ones; 0: it saw none.
    """

    model: str
    prompt: str = ""
    most_frames: int = 0


@dataclass(frozen=True)
class Facts:
    """The facts of a run that become records.

    Attributes:
        columns: The columns that are read.
        authors: What wrote each fact, by column.
    """

    columns: Columns
    authors: Mapping[str, Author]

    def subsets(self, settings: PublishClips) -> tuple[str, ...]:
        """Return the subsets that are published.

        Raises:
            UserError: The run has no facts for one that the settings name, or for any.
        """
        possible = tuple(name for name, needed in SUBSETS.items() if not self.authors.keys().isdisjoint(needed))
        if not possible:
            facts = ", ".join(dict.fromkeys(fact for needed in SUBSETS.values() for fact in needed))
            raise UserError(f"nothing to publish: no stage of the run writes one of {facts}: describe the clips first")
        if lacking := [name for name in settings.subsets if name not in possible]:
            needed = " or ".join(SUBSETS[lacking[0]])
            raise UserError(f"publish: the subset {lacking[0]} needs {needed}, which no stage of the run writes")
        return tuple(name for name in SUBSETS if name in (settings.subsets or possible))


def facts_of(run: Run, recipe: Recipe) -> Facts:
    """Return the facts that the stages of a run have stored, in the tables that its recipe.yaml names.

    Raises:
        UserError: The run is not one of clips.
    """
    schema = recipe.pool.index_schema
    if not set(PLACE) <= set(schema.names):
        raise UserError(
            "publish: this is a run of films, not of clips: name the run of its clips, as in --run RUN/clips"
        )
    tables: dict[str, str] = {}
    fields: dict[str, pa.Field] = {name: schema.field(name) for name in _INDEX}
    authors: dict[str, Author] = {}
    for step, stored, entry in zip(recipe.steps, run.stages, stage_entries(run), strict=True):
        writes = stored.table.writes
        written = [name for name in (*TEXTS, EVENTS, QUESTIONS) if name in writes.names]
        prompt = next((f.name for f in writes if f.name.endswith(_PROMPT) and pa.types.is_string(f.type)), "")
        model = ", ".join(sorted(map(_name, step.stage.models))) or _UNKNOWN
        authors |= dict.fromkeys(written, Author(model, prompt, _most_frames(step.stage)))
        read = [
            *written,
            *([prompt] if written and prompt else []),
            *([FRAME_TIMES] if FRAME_TIMES in writes.names else []),
        ]
        tables |= dict.fromkeys(read, entry["table"])
        fields |= {name: writes.field(name) for name in read}
    return Facts(Columns(names=[*fields, FILM], tables=tables, fields=fields), authors)


def _most_frames(stage: Stage) -> int:
    return (stage.most_frames or _ALL) if FRAME_TIMES in stage.reads else 0


def _name(model: Any) -> str:
    """Return the name of a model; of a path only its end, since the rest describes the machine."""
    text = " ".join(printable(str(model)).split())
    return text.rstrip("/").rpartition("/")[2] if text.startswith(("/", ".", "~")) else text
