from __future__ import annotations

import pytest
from torch import nn

from model.config import preset
from model.training.param_groups import parameter_groups
from model.videollama3 import VideoLLaMA3


@pytest.fixture(scope="module")
def tiny() -> VideoLLaMA3:
    return VideoLLaMA3(preset("tiny"))


def names(model: VideoLLaMA3, groups: list[dict[str, object]]) -> dict[str, float]:
    known = {id(p): name for name, p in model.named_parameters()}
    return {known[id(p)]: group["lr"] for group in groups for p in group["params"]}  # type: ignore[attr-defined, misc]


def test_first_pattern_that_matches_decides(tiny: VideoLLaMA3) -> None:
    rates = {"vision.layers.1": 3e-3, "vision": "frozen", ".*norm": 2e-3, "projector|language": 1e-3}
    groups = parameter_groups(tiny.named_parameters(), rates, 0.1)
    result = names(tiny, groups)
    assert {name.split(".")[2] for name in result if name.startswith("vision.")} == {"1"}
    assert {result[name] for name in result if name.startswith("vision.layers.1")} == {3e-3}
    assert {result[name] for name in result if name.startswith("language") and "norm" in name} == {2e-3}
    assert not tiny.vision.patch_embedding.weight.requires_grad
    assert all(p.requires_grad for n, p in tiny.named_parameters() if n in result)
    decayed = {p.ndim >= 2 for g in groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {True}


def test_tied_weights_are_in_one_group_only(tiny: VideoLLaMA3) -> None:
    groups = parameter_groups(tiny.named_parameters(), {"": 1e-3}, 0)
    members: list[nn.Parameter] = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in members}) == len(members) == len(list(tiny.parameters()))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"vision": 1e-3, "projector": 1e-3}, "no pattern matches language"),
        ({"": 1e-3, "language": "frozen"}, "'language' matches no parameter that an earlier one has not"),
        ({"": "frozen"}, "everything is frozen"),
        ({"visoin": 1e-3, "": 1e-3}, "'visoin' matches no parameter"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(tiny: VideoLLaMA3, rates: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(tiny.named_parameters(), rates, 0)
