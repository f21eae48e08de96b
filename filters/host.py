"""The host of an image's URL, to balance the images by host."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlsplit

import pyarrow as pa

from core.stages import Stage
from manifests.schemas import column


class Host(Stage):
    """The host of an image's URL, in lower case, without port. `keep: {per_group: 1000}` limits the images per host."""

    name: ClassVar = "host"
    driver_rows: ClassVar = 100_000
    reads: ClassVar = ("url",)
    writes: ClassVar = pa.schema([column("host", pa.string(), "Host in the image's URL")])

    def __call__(self, batch: pa.Table) -> pa.Table:
        hosts = [_host(url) for url in batch["url"].to_pylist()]
        errors = [None if host else "no host: the source tells no URL, or none with a host" for host in hosts]
        return pa.table({"host": pa.array(hosts, pa.string()), "error": pa.array(errors, pa.string())})


def _host(url: str | None) -> str | None:
    try:
        return urlsplit(url or "").hostname or None
    except ValueError:  # such as an unclosed bracket
        return None
