"""A system that refuses to write weights ends a training in one line."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from core.errors import UserError
from model.training.recipe import parse_recipe
from model.training.run import train
from tests.model.training import training_data


@pytest.mark.parametrize(("save_every", "folder_of_weights"), [(1, ".step-00000001.partial"), (1000, ".model.partial")])
def test_full_disk_while_writing_weights_is_a_one_line_error(
    tmp_path: Path, save_every: int, folder_of_weights: str
) -> None:
    """A limit on the size of a file stands for a full disk: the system refuses the same write."""
    written = training_data.recipe(tmp_path / "data", steps=1) | {"save_every": save_every, "ask": 0}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    try:
        with pytest.raises(UserError) as raised:
            train(parse_recipe(written, "r.yaml"), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = str(raised.value)
    assert said.startswith(f"{tmp_path}/out/1-first/{folder_of_weights}: weights cannot be written: ")
    assert "File too large (os error 27)" in said
