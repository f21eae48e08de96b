"""What a recipe file says, as pydantic models. They also give the JSON schema (`vl3syn schema`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from core.errors import UserError, suggest
from core.film_pieces import PieceSettings
from core.settings import Settings, problem
from core.stages import Stage
from core.text import refuse_not_unicode
from manifests.rules import KINDS
from pipeline.pools import Pool
from pipeline.pools.registry import parse_pool
from pipeline.stages.registry import NAME, stage_class, stage_names


class Resources(Settings):
    """How a stage is run. These settings change its numbers only by a device's rounding.

    Attributes:
        actors: Most actors, or tasks of a stage that loads nothing, at the same time; default: as many as the CPUs and
            GPUs allow. On a cluster that the run joins, those that do not fit wait for a node, and by default the pool
            grows with the cluster.
        num_cpus: CPUs per actor; default: one, or up to eight for a stage whose model wants a GPU and gets none, since
            a copy of such a model per core would not fit a small machine.
        num_gpus: GPUs per actor, all of one node, or a part of one GPU, such as 0.5; default: one for a stage whose
            model runs on a GPU, or what its engine needs, if the cluster has any.
        batch_size: Rows per call; default: that of the stage, else 64 images, or 1,024 rows for a stage that reads no
            images. Not valid for a stage that compares rows within groups: each call gets a whole part.
        part_rows: Maximum of rows per stored part, which is what a crash can cost an actor. Default: a 64th of the
            work, up to 65,536; up to 1,024 for captions (if the run is a local path, a crash loses no captions). For a
            stage that compares rows within groups: the approximate number of rows per part, in whole groups; default: a
            64th of the work, up to about 1,048,576, since each part is gathered from many parts of other tables.
        threads: Threads per actor that decode images; default: one per CPU that it holds, or, if its GPU and CPUs are
            the default ones, as many as the node has CPUs per GPU.
        image_seconds: Limit for decoding one image, in seconds of wall time. The row of an image that takes longer is
            an error that can be retried. Photographs take well under a second.
        film_seconds: The same for a film or clip, in seconds of wall time; a film is decoded from start to end.
        first_errors: For captioners: if this number of first images of a job all fail with the same error, the server
            is considered faulty: the job ends, and none of them is stored. 0: the job never ends for this reason.
    """

    actors: int | None = Field(default=None, ge=1)
    num_cpus: float | None = Field(default=None, ge=0)
    num_gpus: float | None = Field(default=None, ge=0)
    batch_size: int | None = Field(default=None, ge=1)
    part_rows: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    image_seconds: float = Field(default=60.0, gt=0)
    film_seconds: float = Field(default=7200.0, gt=0)
    first_errors: int = Field(default=32, ge=0)

    @field_validator("num_gpus")
    @classmethod
    def _check_gpus(cls, num_gpus: float | None) -> float | None:
        if num_gpus and num_gpus > 1 and num_gpus != int(num_gpus):
            raise UserError("give a whole number, or a part of one GPU such as 0.5")
        return num_gpus


class Publish(Settings):
    """How a run is published.

    Attributes:
        subsets: Some of `short`, `detailed` and `ocr`: one subset per caption, each with the images. `ocr` has the
            images with text, and its captions are the short ones with each text and its box. Empty: one subset, `data`,
            with the short and detailed captions and each image once.
        format: `parquet`, or `webdataset`: tars of images and JSON.
        rows_per_shard: Images per shard.
        seed: Seed of the random order of images.
    """

    subsets: tuple[Literal["short", "detailed", "ocr"], ...] = ()
    format: Literal["parquet", "webdataset"] = "parquet"
    rows_per_shard: int = Field(default=5000, ge=1)
    seed: int = Field(default=0, ge=0)


class PublishClips(Settings):
    """How a run of clips is published: as records to train on, with the films or references to them.

    Attributes:
        subsets: Some of `captions`, `questions`, `grounding` and `stream`: one folder of records each. Empty: those
            that the run has facts for.
        films: `reference`: records name the films of the pool; `copy`: each clip is cut out by copying its packets,
            from the last key frame before it on; `encode`: each clip is encoded again and has exactly its frames.
        rows_per_shard: Clips per shard. A shard has all records of its clips.
        seed: Seed of the random order of clips.
        media: The folder that the paths of films are relative to, for `reference`; default: the pool's.
    """

    subsets: tuple[Literal["captions", "questions", "grounding", "stream"], ...] = ()
    films: Literal["reference", "copy", "encode"] = "reference"
    rows_per_shard: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)
    media: str | None = None


_KEEP = {
    "type": ["object", "null"],
    "patternProperties": {f"^({'|'.join(KINDS)})(_.+)?$": {"type": "number"}},
    "properties": {"order": {"type": "string"}, "seed": {"type": "integer", "minimum": 0}},
    "additionalProperties": False,
}


def _check_name(name: object) -> object:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name == "index":
        raise UserError("give a name of lower-case letters, digits and _, other than index, such as short_similarity")
    return name


StepName = Annotated[
    str, BeforeValidator(_check_name), WithJsonSchema({"type": "string", "pattern": f"^(?!index$){NAME.pattern}$"})
]


class StageEntry(Settings):
    """An entry of `stages`: the keys below, and beside them the settings of the stage.

    Attributes:
        stage: The name of the stage, or the path of its class, `package.module:Class`.
        path: The path of the class, where `stage` is only its name; key `class`.
        given_name: The name of the step, key `as`; default: that of the stage. Steps of one stage need different names.
        keep: Rules on stored columns: `max: 2.5` on the stage's first column, `min_side: 200` on another one.
        resources: How the stage is run.
        table: The stage's table. It stands in a run's recipe and is not read.
        settings: The stage. It is made from the other keys.
    """

    stage: str
    path: str | None = Field(default=None, alias="class")
    given_name: StepName | None = Field(default=None, alias="as")
    keep: Annotated[dict[Any, Any] | None, WithJsonSchema(_KEEP)] = None
    resources: Resources | None = None
    table: str | None = None
    settings: SerializeAsAny[Stage]

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            raise UserError(f"must be a mapping with `stage`, not {written!r}")
        if "stage" not in written:
            raise UserError(f"no stage; valid are {', '.join(stage_names())}")
        kind = stage_class(str(written.get("class") or written["stage"]))
        if "class" in written and written["stage"] != kind.name:
            raise UserError(f"{written['class']} is the stage {kind.name}, not {written['stage']}")
        entry = {key: value for key, value in written.items() if key in _KEYS}
        settings = {key: value for key, value in written.items() if key not in _KEYS}
        for key, value in settings.items():
            if key not in kind.model_fields:
                rule = f"; a rule stands under keep: `keep: {{{key}: …}}`" if str(key).startswith(KINDS) else ""
                raise UserError(f"unknown key {key!r}{rule or suggest(str(key), [*kind.model_fields, *_KEYS])}")
            refuse_not_unicode(value, key)  # requests, tokenizers and columns cannot hold such a prompt
        return {**entry, "settings": kind.model_validate(settings)}


_KEYS = ("stage", "class", "as", "keep", "resources", "table")


_Stages = Annotated[tuple[StageEntry, ...], BeforeValidator(lambda written: () if written is None else written)]
_PublishClips = Annotated[PublishClips | None, BeforeValidator(lambda written: {} if written is None else written)]


class ClipsEntry(PieceSettings):
    """What is done with the clips of films: where films are cut, and which stages run over the clips, in `RUN/clips`.

    Attributes:
        stages: The stages over clips, in order.
        publish: How the clips are published; without it, `vl3syn run` does not publish.
    """

    stages: _Stages = ()
    publish: _PublishClips = None


class RecipeFile(Settings):
    """A recipe of vl3syn: which images, which stages with which rules, and how the result is published.

    Attributes:
        name: Name of the run and of the dataset; default: that of the file.
        pool: The images.
        stages: The stages, in order.
        publish: How the run is published, as images with captions or as records of clips; without it, `vl3syn run` does
            not publish.
        clips: For a pool of films: what is done with their clips.
        vl3syn: The version that wrote a run's recipe.
    """

    name: str | None = None
    pool: Annotated[SerializeAsAny[Pool], BeforeValidator(parse_pool)]
    stages: _Stages = ()
    publish: Publish | PublishClips | None = None
    clips: ClipsEntry | None = None
    vl3syn: Any = None

    @field_validator("publish", mode="before")
    @classmethod
    def _parse_publish(cls, written: Any, info: ValidationInfo) -> Any:
        pool = info.data.get("pool")
        return publish_settings(pool).model_validate({} if written is None else written)


def publish_settings(pool: Pool | None) -> type[Publish | PublishClips]:
    """Return the class of the settings with which a run over a pool is published."""
    return PublishClips if pool is not None and pool.has_films else Publish


def parse_file(written: object, where: str) -> RecipeFile:
    """Return what a recipe says; `where` names it in errors.

    Raises:
        UserError: The recipe is not valid; the message names the position.
    """
    if isinstance(written, dict) and "pool" not in written:
        raise UserError(f"{where}: no pool; say where the images are, as in `pool: {{images: DIR}}`")
    try:
        return RecipeFile.model_validate(written)
    except ValidationError as error:
        match error.errors()[0]["loc"]:
            case ("stages", int(number), *_):
                raise UserError(f"{where}: {position(written, number)}: {problem(error, skip=2)}") from error
            case ("clips", "stages", int(number), *_):
                at = position(written["clips"], number)  # type: ignore[index]  # it has an entry with this number
                raise UserError(f"{where}: clips: {at}: {problem(error, skip=3)}") from error
        raise UserError(f"{where}: {problem(error)}") from error


def position(written: Any, number: int) -> str:
    """Return the position of a stage in a recipe, for errors: `stages[2] (clip)`."""
    entry = written["stages"][number]
    return f"stages[{number}]" + (f" ({entry['stage']})" if isinstance(entry, dict) and "stage" in entry else "")
