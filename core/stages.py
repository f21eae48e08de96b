"""The base classes of stages: inside this project and in other packages (docs/extending.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image

IMAGE, ENCODED, PORTABLE = "image", "encoded", "portable"
IMAGE_INPUTS = (IMAGE, ENCODED, PORTABLE)
"""What an `ImageStage` can read of an image: the decoded picture; its bytes as they came; bytes that any program shows
right (JPEG, PNG or WebP, upright, RGB, not too large)."""


class Stage(BaseModel):
    """Computes columns (facts) about images from columns of the index and of earlier stages.

    A stage is a frozen pydantic model: its fields are its settings. The settings and `version` are its fingerprint,
    which names the table that holds its rows. It knows nothing of Ray, of paths or of thresholds.

    This class is for stages that load nothing: they define `__call__`. `LoadedStage` loads a model first, `ImageStage`
    reads images, `FittedStage` is trained once, `GroupedStage` compares rows.

    `__call__` maps a table of `reads` to a table of `writes`, row by row in the same order. A row that fails has null
    columns and a text in a further column `error` (and true in `retry` where another try can help). A `UserError` ends
    the job with its one line. Any other exception is a bug and ends the job with a traceback.

    Attributes:
        name: Of the stage, of its table and of its place in the funnel.
        version: Raised when the same settings begin to give other numbers. Older rows then stay aside, unused.
        reads: Columns that it needs; `pool.X` is column X of the pool's own Parquet files, null where there is none.
        writes: Its columns, made with `manifests.schemas.column`. Rules `min`, `max` and `top` without a column's name
            are about the first.
        gpus: GPUs of one worker, where the cluster has any.
        actors: Default number of workers; None: as many as fit.
        batch_size: Default rows of one call; None: 64 images or 1,024 rows.
        journaled: Whether a row costs so much (seconds of a GPU, money) that it is written to disk at once.
        fingerprint_exclude: Settings that change no number, such as the address of a server.
        added_settings: Settings that came after the stage's first release. Each is part of the fingerprint only where
            it differs from its default, so that rows stored before it existed stay valid.
        provenance: Stored with the rows; a loaded model has its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    journaled: ClassVar[bool] = False
    fingerprint_exclude: ClassVar[tuple[str, ...]] = ()
    added_settings: ClassVar[tuple[str, ...]] = ()
    provenance: ClassVar[Mapping[str, Any]] = {}

    @property
    def reads(self) -> Sequence[str]:
        raise NotImplementedError

    @property
    def writes(self) -> pa.Schema:
        raise NotImplementedError

    @property
    def gpus(self) -> int:
        return 0

    @property
    def actors(self) -> int | None:
        return None

    @property
    def batch_size(self) -> int | None:
        return None

    def __call__(self, batch: pa.Table) -> pa.Table:
        raise NotImplementedError

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        """Check the fields of the columns that are read, by name; called when a recipe is read.

        Raises:
            UserError: They do not fit, such as the embeddings of another encoder.
        """

    def check_settings(self) -> None:
        """Refuse settings that an earlier version took. Called before the stage's first row; older runs go on.

        Raises:
            UserError: A setting is not accepted any more.
        """

    def check_available(self) -> None:
        """Check that models and packages are there; called before the first row is computed.

        Raises:
            UserError: One is missing, with how to get it.
        """

    def outdated(self, stored: pl.LazyFrame) -> Iterable[int]:
        """The ids of stored rows that an earlier version computed wrong.

        They are computed again and are not published until then. The other rows stay, which a raised `version` would
        not do.

        Args:
            stored: The stage's table.
        """
        return ()

    def fingerprint_settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on, as JSON values."""
        fields = type(self).model_fields
        unchanged = {name for name in self.added_settings if getattr(self, name) == fields[name].get_default()}
        return self.model_dump(mode="json", exclude={*self.fingerprint_exclude, *unchanged})


class Facts:
    """A loaded stage: maps a table of `reads` to a table of `writes`, by the rules of `Stage.__call__`.

    Attributes:
        provenance: Stored with the rows, such as the hash of the weights.
    """

    provenance: Mapping[str, Any] = {}

    def __call__(self, batch: pa.Table) -> pa.Table:
        raise NotImplementedError


class LoadedStage(Stage):
    """A stage that loads a model, once in each worker."""

    def load(self) -> Facts:
        """Load the model.

        Raises:
            UserError: It cannot be loaded, with what to do.
        """
        raise NotImplementedError


class ImageFacts:
    """A loaded `ImageStage`: `prepare` runs for each image in threads, `__call__` for each batch.

    Attributes:
        side: The shorter side, in pixels, that `prepare` needs at least: a larger JPEG may be decoded at a reduced
            scale. None: every pixel.
        longest: For `portable`: the largest longer side, in pixels. None: no limit.
        calls: Batches that it takes at the same time, from threads.
        provenance: Stored with the rows, such as the hash of the weights.
    """

    side: int | None = None
    longest: int | None = None
    calls: int = 1
    provenance: Mapping[str, Any] = {}

    def prepare(self, *read: Any) -> Any:
        """The values of `reads` for one image, in that order, to what the model takes. Pictures are upright and RGB.

        Raises:
            BadSampleError: The image cannot be used; the text becomes the error of its row.
        """
        raise NotImplementedError

    def __call__(self, inputs: Sequence[Any]) -> pa.Table:
        """The results of `prepare` for some images to one row of `writes` each, in the same order.

        Raises:
            OSError: What it depends on is gone, such as a server; the job ends with the text.
        """
        raise NotImplementedError


class ImageStage(Stage):
    """A stage that reads images. Define `measure`, or, where a model works on batches, `load`."""

    @property
    def reads(self) -> Sequence[str]:
        return (IMAGE,)

    def measure(self, image: Image) -> Mapping[str, Any]:
        """The columns of one image, by name. It runs in several threads at once.

        Raises:
            BadSampleError: The image cannot be used; the text becomes the error of its row.
        """
        raise NotImplementedError

    def load(self) -> Any:
        """Load the model, as `ImageFacts`.

        Raises:
            UserError: It cannot be loaded, with what to do.
        """
        return _Measured(self)


class _Measured(ImageFacts):
    """An `ImageStage` that measures each image by itself."""

    def __init__(self, stage: ImageStage) -> None:
        self._stage = stage

    def prepare(self, *read: Any) -> Any:
        return self._stage.measure(*read)

    def __call__(self, inputs: Sequence[Any]) -> pa.Table:
        return pa.Table.from_pylist(list(inputs), schema=self._stage.writes)


class FittedStage(Stage):
    """A stage that is trained once in the life of a run, on a sample of the rows that reach it.

    Attributes:
        fitted: The hash of what it was trained to; the run fills it in. It is part of the fingerprint.
        sample_rows: The largest number of rows of the sample. They are chosen and ordered by a hash of their ids.
    """

    fitted: str | None = None

    @property
    def sample_rows(self) -> int:
        raise NotImplementedError

    def fit(self, sample: pa.Table) -> tuple[pa.Table, Mapping[str, object]]:
        """Train on a table of `reads`: the table to store in the run, and its provenance.

        Raises:
            UserError: The sample does not do, such as too few rows.
        """
        raise NotImplementedError

    def load_fitted(self, fitted: pa.Table, inputs: Mapping[str, pa.Field]) -> Facts:
        """Load what `fit` returned; `inputs` are the fields of `reads`, by name."""
        raise NotImplementedError


class GroupedStage(Stage):
    """A stage that compares the rows of a group. Each call gets some whole groups, with all rows that are alive.

    What it says of a row must depend on the rows of its group alone. A column that is about two rows names the column
    that holds the id of the second row (`reference_column` of `manifests.schemas.column`): where that row has left and
    a rule drops the first one, the group is computed again.
    """

    @property
    def group_by(self) -> str:
        """The column whose values are the groups."""
        raise NotImplementedError
