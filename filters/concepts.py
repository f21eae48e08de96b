"""Concepts: the texts of a vocabulary that are nearest to an image, to balance a data set by what its images show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from core.errors import UserError
from core.paths import check_path
from core.precision import HasPrecision, device_and_dtype
from core.stages import Facts, LoadedStage
from filters.clip_text import ClipText
from filters.conse import ConseText
from filters.conse_classes import ENCODER
from filters.nearest_texts import NearestTexts
from filters.text_embeddings import embedding_of
from filters.vector_cache import cached_vectors
from filters.vocabulary import IMAGENET, content_hash, read_vocabulary
from manifests.embeddings import encoder_of, to_matrix
from manifests.schemas import column

CONSE = "conse"
"""The name of the offline encoder, whose texts `conse_text` embeds."""

_TEXT = "alt_text"  # the name under which the encoders' text stages get the concepts
_AT_ONCE = 1024  # texts that an encoder gets at once


class Concepts(HasPrecision, LoadedStage):
    """The concepts of a vocabulary whose text embeddings are nearest to the image's embedding.

    LLaVA-OneVision-1.5 (arXiv 2509.23661, section 3.1) takes the nearest of MetaCLIP's 500,000 concepts for each image,
    and draws images by the inverse frequencies of their concepts: `keep: {total: 85000000}`. It needs no captions and
    no alt texts. `concept` makes groups as a cluster does. The default of `top` is ours.

    Each worker holds the embeddings of the vocabulary: 6 bytes per number, so 2.3 GB for 500,000 concepts of 768
    numbers. They are computed once and kept in the user's cache folder.

    Attributes:
        vocabulary: A text file on this machine with one concept a line, or `imagenet`, the names of ImageNet's classes.
        encoder: The encoder of the image embeddings, as for `clip`; or `conse`.
        top: Number of concepts per image.
        template: The text that is embedded, with `{}` for the concept.
        content: Hash of the vocabulary's concepts, a part of the fingerprint; by default that of what lies there now. A
            run's recipe has it, so that the stored rows stay valid if the file is gone.
    """

    name: ClassVar = "concepts"
    fingerprint_exclude: ClassVar = ("vocabulary", "precision")
    preload: ClassVar = ("torch",)
    reads: ClassVar = ("image_embedding",)
    gpus: ClassVar = 1
    writes: ClassVar = pa.schema(
        [
            column("concepts", pa.list_(pa.string()), "Concepts nearest to the image, nearest first"),
            column("concept_scores", pa.list_(pa.float32()), "Cosine similarity of image and each of `concepts`"),
            column("concept", pa.string(), "Concept nearest to the image"),
            column("concept_score", pa.float32(), "Cosine similarity of image and `concept`", -1, 1),
        ]
    )
    vocabulary: str
    encoder: str
    top: int = Field(3, ge=1)
    template: str = "a photo of a {}."
    content: str | None = Field(None, validate_default=True)

    @field_validator("vocabulary")
    @classmethod
    def _check_vocabulary(cls, vocabulary: str) -> str:
        return check_path(vocabulary, "vocabulary")

    @field_validator("template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise UserError(f"template {template!r}: write {{}} once, where the concept belongs")
        return template

    @field_validator("content")
    @classmethod
    def _with_content(cls, content: str | None, info: ValidationInfo) -> str | None:
        vocabulary = info.data.get("vocabulary")
        return content_hash(read_vocabulary(vocabulary)) if content is None and vocabulary else content

    @property
    def texts(self) -> ConseText | ClipText:
        """The stage that embeds texts by the same encoder."""
        if self.encoder == CONSE:
            return ConseText(texts=(_TEXT,))
        return ClipText(encoder=self.encoder, texts=(_TEXT,), precision=self.precision)

    @property
    def models(self) -> Mapping[str, str | None]:
        return self.texts.models

    @property
    def model_files(self) -> Mapping[str, str]:
        file = {} if self.vocabulary == IMAGENET else {"vocabulary": self.vocabulary}
        return {**self.texts.model_files, **file}

    @property
    def packages(self) -> Mapping[str, str]:
        timm = {"timm": "offline"} if self.vocabulary == IMAGENET else {}
        return {**self.texts.packages, **timm}

    def remedy(self, column: str) -> str:
        return "put clip before this stage, or conse"

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        encoder = encoder_of(inputs["image_embedding"])
        if encoder != (ENCODER if self.encoder == CONSE else self.encoder):
            of = CONSE if encoder == ENCODER else encoder
            raise UserError(f"the images are embedded by {of} and the concepts by {self.encoder}; use one encoder")

    def check_available(self) -> None:
        super().check_available()
        self.texts.check_available()
        self.concepts()

    def concepts(self) -> tuple[str, ...]:
        """Return the concepts.

        Raises:
            UserError: The vocabulary cannot be read, is not what it was, or has fewer concepts than `top`.
        """
        concepts = read_vocabulary(self.vocabulary)
        if content_hash(concepts) != self.content:
            raise UserError(
                f"concepts: {self.vocabulary} is not what it was when the recipe was read: leave `content` out of the "
                "recipe and run it again, to compare with what is there now"
            )
        if len(concepts) < self.top:
            raise UserError(f"concepts: the top {self.top} of {len(concepts)} concepts cannot be: give a lower `top`")
        return concepts

    def load(self) -> NearestConcepts:
        concepts, texts = self.concepts(), self.texts.load()
        vectors = _embeddings([self.template.replace("{}", concept) for concept in concepts], texts, self)
        return NearestConcepts(concepts, vectors, self.top, texts.provenance)


class NearestConcepts(Facts):
    """`Facts` of `concepts`: embeddings of images to names and cosines."""

    def __init__(
        self, concepts: Sequence[str], vectors: npt.NDArray[np.float16], top: int, provenance: Mapping[str, object]
    ) -> None:
        """Make the search.

        Args:
            concepts: The names.
            vectors: Their embeddings, of length 1, (concepts, dimensions).
            top: Number of concepts per image.
            provenance: What computed the vectors.
        """
        self._names, self._top = np.array(concepts, object), top
        self._texts = NearestTexts(vectors, device_and_dtype()[0])
        self.provenance = {**provenance, "vocabulary_concepts": len(concepts)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors, errors = to_matrix(batch["image_embedding"])
        fine = np.array([row for row, error in enumerate(errors) if error is None], np.int64)
        numbers, cosines = self._texts.search(vectors[fine], self._top)
        names = self._names[numbers]
        values: list[Any] = [list(names), list(cosines), names[:, 0], cosines[:, 0]]
        places = np.full(len(errors), -1)
        places[fine] = np.arange(len(fine))
        rows = pa.array(places, mask=places < 0)
        columns = [
            pa.array(column, field.type).take(rows) for column, field in zip(values, Concepts.writes, strict=True)
        ]
        return pa.table([*columns, pa.array(errors, pa.string())], names=[*Concepts.writes.names, "error"])


def _embeddings(prompts: Sequence[str], texts: Facts, stage: Concepts) -> npt.NDArray[np.float16]:
    """Return the embeddings of texts, of length 1, (texts, dimensions); from the cache if it has them.

    Raises:
        UserError: The encoder has no embedding of a text.
    """

    def compute() -> npt.NDArray[np.float16]:
        parts = [prompts[start : start + _AT_ONCE] for start in range(0, len(prompts), _AT_ONCE)]
        embedded = pa.concat_tables([texts(pa.table({_TEXT: pa.array(part, pa.string())})) for part in parts])
        vectors, errors = to_matrix(embedded[embedding_of(_TEXT)])
        if failed := next((prompt for prompt, error in zip(prompts, errors, strict=True) if error), None):
            raise UserError(f"concepts: {stage.encoder} has no embedding of {failed!r}: remove it from the vocabulary")
        return vectors.astype(np.float16)

    described = json.dumps([stage.encoder, dict(texts.provenance), list(prompts)], sort_keys=True)
    name = f"concepts-{hashlib.sha256(described.encode()).hexdigest()[:32]}"
    dimensions = stage.texts.writes.field(embedding_of(_TEXT)).type.list_size
    vectors: npt.NDArray[np.float16] = cached_vectors(name, (len(prompts), dimensions), np.float16, compute)
    return vectors
