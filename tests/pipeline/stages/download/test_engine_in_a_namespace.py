"""Addresses and names beyond loopback, in a network of its own that no packet can leave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.stages.download.namespace import LITERALS, NAMES, PUBLIC

_UNSHARE = ["unshare", "--map-root-user", "--net", "--mount"]


def _has_namespaces() -> bool:
    try:
        return subprocess.run([*_UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.thorough
@pytest.mark.skipif(not _has_namespaces(), reason="needs unshare and ip, and the right to make a network namespace")
def test_only_public_addresses_are_connected_to(download_python: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("namespace.py")
    command = [*_UNSHARE, sys.executable, str(script), download_python, str(tmp_path)]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    errors = {url.split("/")[2] if "/image/" in url else url: error for url, error in seen["outcomes"].items()}

    public = {"public.example.com", "mixed.example.com", "rebinding.example.com"}
    assert {name for name, error in errors.items() if error is None} == public
    private = {*NAMES, *LITERALS} - public - {"[fe80::1%25lo]"}
    assert [name for name in private if not errors[name].startswith("forbidden address: ")] == []
    redirected = [error for url, error in errors.items() if "/to/" in url]
    assert redirected == [
        "forbidden address: 169.254.169.254",
        "forbidden address: 10.0.0.1",
        "forbidden scheme: file",
    ]
    assert seen["guarded"] == {PUBLIC: len(public) + len(redirected)}
    # Without the guard these are reached, so they would have been seen.
    assert {"10.0.0.1", "169.254.169.254", "127.0.0.1", "::1", "fd00::1", "2002:a00:1::"} <= set(seen["unguarded"])
