"""Which float type a model has on a GPU, and which models may bring code."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from core.pretrained import check_pinned, gpu_dtype

V100, T4, A100, H200, P100 = (7, 0), (7, 5), (8, 0), (9, 0), (6, 0)


@pytest.mark.parametrize(
    ("capability", "model_type", "expected"),
    [
        (A100, "opt", "bfloat16"),
        (H200, "t5", "bfloat16"),
        (H200, "", "bfloat16"),
        (V100, "opt", "float16"),
        (T4, "blip_text_model", "float16"),
        (T4, "", "float16"),
        (V100, "t5", "float32"),
        (T4, "t5", "float32"),
        (T4, "umt5", "float32"),
        (P100, "opt", "float32"),
        (P100, "t5", "float32"),
    ],
)
def test_gpu_dtype_is_the_fastest_that_does_not_overflow(
    capability: tuple[int, int], model_type: str, expected: str
) -> None:
    assert gpu_dtype(capability, model_type) == expected


@pytest.mark.parametrize("revision", [None, "", "main", "v2.0", "3bfd366", "g" * 40])
def test_check_pinned_without_a_commit_refuses_a_hub_name(revision: str | None) -> None:
    with pytest.raises(UserError, match=r"^short_caption: trust_remote_code runs Python code out of a/b: give `rev"):
        check_pinned("a/b", "short_caption", revision)


def test_check_pinned_accepts_a_commit_or_a_folder(tmp_path: Path) -> None:
    check_pinned("a/b", "short_caption", "0123456789abcdef0123456789abcdef01234567")
    check_pinned(str(tmp_path), "short_caption", None)
