"""Captions from the labels of `conse`, offline.

They name one or two of ImageNet's 1000 classes and nothing else: no people, colours, numbers or writing. For anything
outside these classes they name the class that looks most similar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from core.stages import Stage
from manifests.schemas import ERROR, column

_BARE = frozenset(
    """
    binoculars parallel_bars sunglasses swimming_trunks
    broccoli carbonara cauliflower chain_mail chocolate_sauce consomme corn dough eggnog espresso face_powder guacamole
    hair_spray hay ice_cream lotion mashed_potato meat_loaf rapeseed red_wine sunscreen thatch toilet_tissue velvet wool
    """.split()
)
"""Labels without an article: plurals and uncountable nouns."""

_SOUNDS_LIKE_YOU = ("eu", "uni", "one-")
_SILENT_H = ("hour",)


class LabelCaption(Stage):
    """`coarse_caption` from the most probable labels: "a photo of a tabby", "a photo of a tabby or a tiger cat".

    Attributes:
        near: The second label is named too if its probability is at least this share of the first's, 0 to 1.
    """

    name: ClassVar = "label_caption"
    driver_rows: ClassVar = 10_000
    reads: ClassVar = ("labels", "label_probabilities")
    writes: ClassVar = pa.schema(
        [column("coarse_caption", pa.string(), "Coarse caption: the one or two most probable ImageNet classes")]
    )

    near: float = Field(default=0.5, gt=0, le=1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = zip(*(batch[name].to_pylist() for name in self.reads), strict=True)
        captions = [self._caption(labels or (), probabilities or ()) for labels, probabilities in rows]
        errors = [
            None if caption else "no label: `labels` or `label_probabilities` is null or empty" for caption in captions
        ]
        return pa.table(
            [pa.array(captions, pa.string()), pa.array(errors, ERROR.type)], schema=self.writes.append(ERROR)
        )

    def _caption(self, labels: Sequence[str], probabilities: Sequence[float]) -> str | None:
        """Return the caption of one image; None if it has no labels."""
        ranked = list(zip(labels, probabilities, strict=False))
        if not ranked:
            return None
        named = [label for label, probability in ranked[:2] if probability >= self.near * ranked[0][1]]
        # Two classes may share their first lemma: crane is a bird and a machine.
        return "a photo of " + " or ".join(dict.fromkeys(map(with_article, named)))


def with_article(label: str) -> str:
    """Return a label with its article by pronunciation, or without one: "an abacus", "a unicycle", "corn"."""
    spoken = label.lower()
    if spoken.replace(" ", "_") in _BARE:
        return label
    vowel = spoken.startswith(("a", "e", "i", "o", "u", *_SILENT_H)) and not spoken.startswith(_SOUNDS_LIKE_YOU)
    return f"an {label}" if vowel else f"a {label}"
