"""Which models may bring code."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from core.pretrained import check_pinned, stored_bytes


@pytest.mark.parametrize("revision", [None, "", "main", "v2.0", "3bfd366", "g" * 40])
def test_check_pinned_without_a_commit_refuses_a_hub_name(revision: str | None) -> None:
    with pytest.raises(UserError, match=r"^short_caption: trust_remote_code runs Python code out of a/b: give `rev"):
        check_pinned("a/b", "short_caption", revision)


def test_check_pinned_accepts_a_commit_or_a_folder(tmp_path: Path) -> None:
    check_pinned("a/b", "short_caption", "0123456789abcdef0123456789abcdef01234567")
    check_pinned(str(tmp_path), "short_caption", None)


def test_stored_bytes_are_of_a_folder_or_of_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    blobs = tmp_path / "hub" / "models--some--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "0a").write_bytes(b"12345")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert stored_bytes("some/model") == 5
    assert stored_bytes("some/other") is None
    assert stored_bytes("../../models") is None
    assert stored_bytes(str(blobs)) == stored_bytes(str(blobs / "0a")) == 5
