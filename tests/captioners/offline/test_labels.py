"""Label captions: one name or two, the right article, and nothing made up where there are no labels."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from captioners.offline.labels import LabelCaption, with_article
from manifests.schemas import ERROR

NO_LABEL = "no label: `labels` or `label_probabilities` is null or empty"


def labels(*rows: tuple[list[str] | None, list[float] | None]) -> pa.Table:
    names, probabilities = zip(*rows, strict=True) if rows else ((), ())
    return pa.table(
        {
            "labels": pa.array(names, pa.list_(pa.string())),
            "label_probabilities": pa.array(probabilities, pa.list_(pa.float32())),
        }
    )


def caption(names: list[str], probabilities: list[float], near: float = 0.5) -> str:
    (text,) = LabelCaption(near=near)(labels((names, probabilities)))["coarse_caption"].to_pylist()
    return str(text)


def test_label_captions_have_the_declared_columns() -> None:
    table = LabelCaption()(labels((["tabby"], [0.9]), (None, None), ([], []), (["tabby"], None), (["pug"], [0.1])))
    assert table.schema.equals(LabelCaption.writes.append(ERROR), check_metadata=True)
    assert table.to_pydict() == {
        "coarse_caption": ["a photo of a tabby", None, None, None, "a photo of a pug"],
        "error": [None, NO_LABEL, NO_LABEL, NO_LABEL, None],
    }
    assert LabelCaption()(labels()).num_rows == 0


@pytest.mark.parametrize(
    ("names", "probabilities", "expected"),
    [
        (["tabby", "tiger cat", "lynx"], [0.8, 0.1, 0.05], "a photo of a tabby"),
        (["tabby", "tiger cat", "lynx"], [0.4, 0.3, 0.3], "a photo of a tabby or a tiger cat"),  # two at most
        (["tiger cat", "Egyptian cat"], [0.5, 0.25], "a photo of a tiger cat or an Egyptian cat"),  # half is near
        (["tiger cat", "Egyptian cat"], [0.5, 0.24], "a photo of a tiger cat"),
        (["crane", "crane"], [0.5, 0.4], "a photo of a crane"),  # the bird and the machine
        (["corn", "ear"], [0.5, 0.4], "a photo of corn or an ear"),
    ],
)
def test_captions_of_known_labels_are_right(names: list[str], probabilities: list[float], expected: str) -> None:
    assert caption(names, probabilities) == expected


def test_near_is_a_share_of_the_first_probability() -> None:
    assert caption(["tabby", "lynx"], [0.5, 0.49], near=1) == "a photo of a tabby"
    assert caption(["tabby", "lynx"], [0.5, 0.01], near=0.01) == "a photo of a tabby or a lynx"
    for wrong in (0, 1.1):
        with pytest.raises(ValidationError):
            LabelCaption(near=wrong)


@pytest.mark.parametrize(
    "phrase",
    """
    a tench|an abacus|an iPod|an ox|an upright|an umbrella|a unicycle|a European gallinule|a hen|an hourglass|an ear
    |an Old English sheepdog|an English setter|a Chihuahua|a yawl|sunglasses|toilet tissue|ice cream|an ice lolly
    """.replace("\n    ", "").split("|"),
)
def test_label_gets_the_right_article(phrase: str) -> None:
    label = phrase.removeprefix("an ") if phrase.startswith("an ") else phrase.removeprefix("a ")
    assert with_article(label) == phrase
