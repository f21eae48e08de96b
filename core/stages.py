"""Base classes for stages, in this project and in other packages (docs/extending.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pyarrow as pa

from core.pretrained import require
from core.settings import Settings

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image

IMAGE, ENCODED, PORTABLE = "image", "encoded", "portable"
IMAGE_INPUTS = (IMAGE, ENCODED, PORTABLE)
"""Image inputs of an `ImageStage`: the decoded picture; the original bytes; bytes that any program displays correctly
(JPEG, PNG or WebP, upright, RGB or grey, not too large)."""

FILM = "film"
"""The film input of an `ImageStage`: a `core.films.FilmFile`, which the stage opens."""

MEDIA_INPUTS = (*IMAGE_INPUTS, FILM)
"""All inputs that are read from the pool's files."""


class Stage(Settings):
    """A stage computes columns (facts) about images from columns of the index and of earlier stages.

    A stage is a frozen pydantic model: its fields are its settings. The settings and `version` are part of its
    fingerprint, which names the table that holds its rows. A stage does not know Ray, paths or thresholds.

    Use this class for stages that load nothing: they define `__call__`. `LoadedStage` loads a model first, `ImageStage`
    reads images, `FittedStage` is trained once, `GroupedStage` compares rows.

    `__call__` maps a table of `reads` to a table of `writes`, row by row in the same order. A row that fails has null
    columns and a text in an additional column `error` (and true in `retry` if it can be retried). A `UserError` ends
    the job with one line. Any other exception is a bug and ends the job with a traceback.

    Attributes:
        name: Name of the stage, of its table and of its line in the funnel.
        version: Raise it when the same settings give other values. Rows of older versions stay stored, but unused.
        reads: Columns that the stage needs; `pool.X` is column X of the pool's files, null where it is missing.
        writes: Columns that the stage computes, made with `manifests.schemas.column`. Rules without a column's name
            apply to the first.
        models: The models that compute the columns, each with the licence that its page states, or None if that is not
            known. The dataset card lists them.
        model_files: Where the weights of `models` are, by model: a path or a name on the hub; default: their names.
            Workers read them; a model that a server elsewhere has is left out. Other files that workers read are here
            by the setting that names them.
        packages: Packages that the stage imports, each with the extra of vl3syn that installs it, or an empty text.
            `check_available` and `vl3syn doctor` say which are missing.
        preload: Modules that a worker imports and that take seconds, such as torch. Workers of small jobs import them
            while the pool is listed and indexed.
        gpus: Number of GPUs per worker, if the cluster has GPUs.
        actors: Default number of workers; None: as many as fit.
        batch_size: Default number of rows per call; None: 64 images or 1,024 rows.
        driver_rows: Up to this number of rows are computed in the driver: the start of a worker would take longer.
            Only for stages that are fast and cannot end their process. 0: always in workers.
        journaled: Whether a row is so expensive (GPU seconds, money) that it is written to disk at once.
        optional_pool_columns: Whether a pool may lack the columns `pool.X` that it reads, which are null then.
        fingerprint_exclude: Settings that do not change any value, such as the address of a server.
        added_settings: Settings that were added after the stage's first release. Each is part of the fingerprint only
            where it differs from its default, so that rows stored before it existed stay valid.
        provenance: Stored with the rows; a loaded model has its own.
        published: Whether its columns are published.
        per_frame: Whether a run of clips computes it for each stored frame, from the embedding of the frame.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    preload: ClassVar[tuple[str, ...]] = ()
    driver_rows: ClassVar[int] = 0
    journaled: ClassVar[bool] = False
    published: ClassVar[bool] = True
    per_frame: ClassVar[bool] = False
    optional_pool_columns: ClassVar[bool] = False
    fingerprint_exclude: ClassVar[tuple[str, ...]] = ()
    added_settings: ClassVar[tuple[str, ...]] = ()
    provenance: ClassVar[Mapping[str, object]] = {}

    @property
    def most_frames(self) -> int | None:
        """Most of the stored frames of a clip that its model is shown, evenly spaced ones; None: all."""
        return None

    @property
    def reads(self) -> Sequence[str]:
        raise NotImplementedError

    @property
    def writes(self) -> pa.Schema:
        raise NotImplementedError

    @property
    def models(self) -> Mapping[str, str | None]:
        return {}

    @property
    def model_files(self) -> Mapping[str, str]:
        return {model: model for model in self.models}

    @property
    def packages(self) -> Mapping[str, str]:
        return {}

    @property
    def gpus(self) -> int:
        return 0

    @property
    def token_column(self) -> str | None:
        """The column of `writes` with the number of tokens that a model wrote for a row; None if it writes no text."""
        return None

    @property
    def actors(self) -> int | None:
        return None

    @property
    def batch_size(self) -> int | None:
        return None

    def __call__(self, batch: pa.Table) -> pa.Table:
        raise NotImplementedError

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        """Check the fields of the input columns, by name; called when a recipe is read.

        Raises:
            UserError: A field does not fit, for example embeddings of another encoder.
        """

    def remedy(self, column: str) -> str:
        """Say what to do about a column of `reads` that no earlier stage writes; an empty text if that is clear."""
        return ""

    def check_settings(self) -> None:
        """Refuse settings that only earlier versions accepted; called before a stage's first row. Older runs continue.

        Raises:
            UserError: A setting is no longer accepted.
        """

    def check_available(self) -> None:
        """Check that models and packages are available; called before the first row is computed.

        Raises:
            UserError: One is missing; the text says how to get it.
        """
        for package, extra in self.packages.items():
            require(package, extra, self.name)

    def outdated(self, stored: pl.LazyFrame) -> Iterable[int]:
        """Return the ids of stored rows that an earlier version computed wrong.

        They are computed again and are not published until then. The other rows stay valid; a raised `version` would
        discard them all.

        Args:
            stored: The stage's table.
        """
        return ()

    def fingerprint_settings(self) -> dict[str, object]:
        """Return the settings that the computed values depend on, as JSON values."""
        fields = type(self).model_fields
        unchanged = {name for name in self.added_settings if getattr(self, name) == fields[name].get_default()}
        return self.model_dump(mode="json", exclude={*self.fingerprint_exclude, *unchanged})


class Facts:
    """A loaded stage. It maps a table of `reads` to a table of `writes`, under the contract of `Stage`.

    Attributes:
        provenance: Stored with the rows, such as the hash of the weights.
    """

    provenance: Mapping[str, object] = {}

    def __call__(self, batch: pa.Table) -> pa.Table:
        raise NotImplementedError


class LoadedStage(Stage):
    """A stage that loads a model, once in each worker."""

    def load(self) -> Facts:
        """Load the model.

        Raises:
            UserError: The model cannot be loaded; the text says what to do.
        """
        raise NotImplementedError


class Memory(Protocol):
    """A model's answers about rows that are not finished. They outlive a kill, and a fault of the server.

    A row that takes several questions puts each answer there, and asks no question whose answer is there. When the row
    is saved, its answers are forgotten; those of a row that is to be retried stay.
    """

    def get(self, id_: int, key: str) -> str | None:
        """Return the answer about a row, by what was asked; None if there is none."""

    def put(self, id_: int, key: str, text: str) -> None:
        """Save an answer about a row."""


class ImageFacts:
    """A loaded `ImageStage`: `prepare` runs for each image in threads, `__call__` for each batch.

    Attributes:
        side: Smallest shorter side, in pixels, that `prepare` needs. A larger JPEG may be decoded at a reduced scale.
            None: every pixel is needed.
        longest: For `portable`: the largest longer side, in pixels; larger images are scaled down.
        calls: Number of batches that may be processed at the same time, in threads.
        has_model: Whether `__call__` runs a model: the share of time in which it waits for images is reported.
        provenance: Stored with the rows, such as the hash of the weights.
        memory: The worker of a journaled stage sets it before the first row; None: nothing is remembered.
    """

    side: int | None = None
    longest: int = 2048
    calls: int = 1
    has_model: bool = True
    provenance: Mapping[str, object] = {}
    memory: Memory | None = None

    def prepare(self, *read: Any) -> Any:
        """Convert the values of `reads` for one image, in that order, to the model's input. Pictures are upright RGB.

        Raises:
            BadSampleError: The image cannot be used; the text becomes the error of its row.
        """
        raise NotImplementedError

    def __call__(self, inputs: Sequence[Any]) -> pa.Table:
        """Compute one row of `writes` for each result of `prepare`, in the same order.

        Raises:
            OSError: A dependency such as a server is gone; the job ends with the text.
        """
        raise NotImplementedError


class ImageStage(Stage):
    """A stage that reads images or films. Define `measure`, or define `load` for a model that works on batches.

    Use it, too, for a stage that reads stored frames (columns of an earlier stage) and decodes them: `prepare` runs in
    threads.
    """

    @property
    def reads(self) -> Sequence[str]:
        return (IMAGE,)

    def measure(self, image: Image) -> Mapping[str, object]:
        """Return the columns of one image, by name. It runs in several threads at once.

        Raises:
            BadSampleError: The image cannot be used; the text becomes the error of its row.
        """
        raise NotImplementedError

    def load(self) -> ImageFacts:
        """Load the model.

        Raises:
            UserError: The model cannot be loaded; the text says what to do.
        """
        return _Measured(self)


class _Measured(ImageFacts):
    """Adapter for an `ImageStage` that defines `measure`: it measures each image by itself."""

    has_model = False

    def __init__(self, stage: ImageStage) -> None:
        self._stage = stage

    def prepare(self, *read: Any) -> Any:
        return self._stage.measure(*read)

    def __call__(self, inputs: Sequence[Any]) -> pa.Table:
        return pa.Table.from_pylist(list(inputs), schema=self._stage.writes)


class FittedStage(Stage):
    """A stage that is trained once per run, on a sample of the rows that reach it.

    Attributes:
        fitted: The hash of the fitted artifact. The run sets it, and it is part of the fingerprint.
        sample_rows: Largest number of rows in the sample. They are chosen and ordered by a hash of their ids.
    """

    fitted: str | None = None

    @property
    def sample_rows(self) -> int:
        raise NotImplementedError

    def fit(self, sample: pa.Table) -> tuple[pa.Table, Mapping[str, object]]:
        """Train on a table of `reads`. Return the fitted artifact, a table to store in the run, and its provenance.

        Raises:
            UserError: The sample is not usable, for example it has too few rows.
        """
        raise NotImplementedError

    def load_fitted(self, fitted: pa.Table, inputs: Mapping[str, pa.Field]) -> Facts:
        """Load the fitted artifact that `fit` returned; `inputs` are the fields of `reads`, by name."""
        raise NotImplementedError


class GroupedStage(Stage):
    """A stage that compares the rows of a group. Each call gets one or more whole groups, with all rows that are alive.

    The values of a row must depend only on the rows of its group. A column about two rows names the column that holds
    the second row's id (`reference_column` of `manifests.schemas.column`). If a rule drops a row and its second row is
    no longer alive, the group is computed again.
    """

    @property
    def group_by(self) -> str:
        """The column whose values are the groups."""
        raise NotImplementedError
