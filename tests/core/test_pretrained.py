"""Which models may bring code."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from core.pretrained import check_pinned


@pytest.mark.parametrize("revision", [None, "", "main", "v2.0", "3bfd366", "g" * 40])
def test_check_pinned_without_a_commit_refuses_a_hub_name(revision: str | None) -> None:
    with pytest.raises(UserError, match=r"^short_caption: trust_remote_code runs Python code out of a/b: give `rev"):
        check_pinned("a/b", "short_caption", revision)


def test_check_pinned_accepts_a_commit_or_a_folder(tmp_path: Path) -> None:
    check_pinned("a/b", "short_caption", "0123456789abcdef0123456789abcdef01234567")
    check_pinned(str(tmp_path), "short_caption", None)
