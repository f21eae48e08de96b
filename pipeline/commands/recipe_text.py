"""Compose a recipe out of the stages of the project's recipes, with their comments: each number is explained once.

`templates/` has links to the files of `recipes/`. A stage of a recipe is the lines from its `- stage:` up to the next.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import yaml

from core.errors import UserError

BASES: Mapping[str, str] = {"cpu": "demo", "gpu": "laptop", "cluster": "vl3syn7m"}
"""The recipe that gives the stages, by hardware."""

_ABOUT: Mapping[str, str] = {
    "cpu": "For a CPU, offline: weights that Python packages carry, stand-ins for CLIP (as recipes/demo.yaml).",
    "gpu": "For one GPU: small models from the hub (as recipes/laptop.yaml).",
    "cluster": "The chain of VL3-Syn7M (as recipes/vl3syn7m.yaml), for nodes of 8 GPUs and 96 or more CPUs.",
}

MODELS: Mapping[str, str] = {
    "cpu": "OpenGVLab/InternVL3-1B-hf",
    "gpu": "OpenGVLab/InternVL3-1B-hf",
    "cluster": "OpenGVLab/InternVL3-8B-hf",
}
"""The caption model by hardware: both in transformers' own layout, which runs no code of its repository."""

NO_CAPTIONS, DESCRIBE = "none", "describe"
_CAPTIONS = ("short_caption", "detailed_caption")
_LEFT_OUT = ("coyo", "download", "describe", *_CAPTIONS)
_PER_CLUSTER = 350  # as 20,000 clusters of 350 images make 7 M in recipes/vl3syn7m.yaml
_STAGE = re.compile(r"^  - (?:\{ ?)?stage: (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Choices:
    """What a user has chosen.

    Attributes:
        name: Name of the recipe.
        pool: The pool, as a recipe has it: `{"images": "photos"}`.
        hardware: A key of `BASES`.
        captions: `none`, `describe` (offline, only with `cpu`), or a kind of engine.
        model: The caption model.
        server: URL of the server, for the engine `server`.
        size: Images to keep, evenly over the clusters; None: as many of each cluster as the recipe says.
        images: Images of the pool; None: unknown.
    """

    name: str
    pool: Mapping[str, str]
    hardware: str
    captions: str
    model: str
    server: str | None = None
    size: int | None = None
    images: int | None = None

    @property
    def knows_clusters(self) -> bool:
        """Whether the number of clusters follows from the choices; else it is that of a recipe for few images."""
        return self.hardware == "cluster" or bool(self.size or self.images)


def compose(choices: Choices) -> str:
    """Return the text of a recipe.

    Raises:
        UserError: The choices do not fit each other.
    """
    base = _read(BASES[choices.hardware])
    stages = {name: text for name, text in _stages(base).items() if name not in _LEFT_OUT}
    if "urls" in choices.pool:
        first, *others = stages.items()
        stages = dict([first, ("download", _stages(_read("coyo"))["download"]), *others])
    stages = {name: _fitted(name, text, choices) for name, text in stages.items()}
    stages |= _caption_stages(choices)
    head = [
        f"# {_ABOUT[choices.hardware]}",
        "# Written by `vl3syn init`; edit it, then",
        "#     vl3syn run RECIPE --run RUN --dry-run     # what it would do; add --measure for how long",
        "#     vl3syn run RECIPE --run RUN",
        "# Moving a threshold later computes nothing again: vl3syn sweep RUN",
        f"name: {_inline(choices.name)}",
        f"pool: {_inline(dict(choices.pool))}",
        "stages:",
    ]
    publish = [] if choices.captions == NO_CAPTIONS else ["publish: {}"]
    return "\n".join([*head, *(text.rstrip("\n") for text in stages.values()), *publish]) + "\n"


def _read(recipe: str) -> str:
    return files("pipeline").joinpath("templates", f"{recipe}.yaml").read_text("utf-8")


def _stages(recipe: str) -> dict[str, str]:
    """Return the text of each stage, by its name; without comments between stages, which may be about others."""
    body = recipe.partition("\nstages:\n")[2].partition("\npublish:")[0]
    lines = [line for line in body.split("\n") if not line.startswith("  #")]
    text = "\n".join(lines)
    starts = [(match.start(), match[1]) for match in _STAGE.finditer(text)]
    ends = [*(start for start, _ in starts[1:]), len(text)]
    return {name: text[start:end].rstrip() for (start, name), end in zip(starts, ends, strict=True)}


def _fitted(name: str, text: str, choices: Choices) -> str:
    """Return a stage with the sizes of the user's pool and dataset in the place of the recipe's."""
    text = text.replace("demo/run", "RUN")
    if name == "clusters" and (clusters := _clusters(choices)):
        count, reason = clusters
        text = re.sub(r"clusters: \d+ .*", f"clusters: {count:<10}# {reason}", text)
    elif name == "clusters" and not choices.knows_clusters:
        text = re.sub(r"(clusters: \d+ +)# .*", r"\1# EDIT: about the square root of your images", text)
    if choices.size:
        total = f"total_cluster: {choices.size}   # your target, as evenly as the clusters allow"
        text = re.sub(r"per_group_cluster: .*", total, text)
    return text


def _clusters(choices: Choices) -> tuple[int, str] | None:
    """Return the number of clusters and its reason; None: that of the recipe."""
    if choices.hardware == "cluster":
        if not choices.size:
            return None
        return max(1, choices.size // _PER_CLUSTER), f"ours: for {_PER_CLUSTER} images of each, as in VL3-Syn7M"
    count = choices.size if choices.images is None else min(choices.size or choices.images, choices.images)
    return (max(1, math.isqrt(count)), "ours: about the square root of the images") if count else None


def _caption_stages(choices: Choices) -> dict[str, str]:
    if choices.captions == NO_CAPTIONS:
        return {}
    if choices.captions == DESCRIBE:
        if choices.hardware != "cpu":
            raise UserError("captions by describe need labels, which only the recipe for a cpu has: --hardware cpu")
        return {DESCRIBE: "  - stage: describe         # offline: what it measures, without a language model"}
    engine = {"kind": choices.captions} | ({"url": choices.server} if choices.server else {})
    stages = _stages(_read(BASES["gpu"]))
    return {name: _by(stages[name], _inline(choices.model), _inline(engine)) for name in _CAPTIONS}


def _by(text: str, model: str, engine: str) -> str:
    text = re.sub(r"    model: .*", lambda _: f"    model: {model}", text)
    return re.sub(r"    engine: .*", lambda _: f"    engine: {engine}", text)


def _inline(value: object) -> str:
    """Return a value as one line of YAML, also if a text in it has several."""
    text = yaml.safe_dump([value], default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True)
    if len(text.splitlines()) > 1:
        text = yaml.safe_dump([value], default_flow_style=True, width=math.inf, sort_keys=False, default_style='"')
    return str(text)[1:-2]


def check_choices(hardware: str, captions: str, engines: Sequence[str]) -> None:
    """Refuse unknown values.

    Raises:
        UserError: One is unknown; the text names the valid ones.
    """
    for what, value, valid in (
        ("hardware", hardware, tuple(BASES)),
        ("captions", captions, (NO_CAPTIONS, DESCRIBE, *engines)),
    ):
        if value not in valid:
            raise UserError(f"{what}: {value!r} is none of {', '.join(valid)}")
