"""The contents table: length and SHA-256 of each image's bytes when a job first read them.

Facts describe those bytes. Every later reader compares the length, and publishing also compares the SHA-256. So no
image is captioned or published with facts of another one. A run of an earlier version has no such table; it fills as
images are read.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from manifests.schemas import column, table_schema
from manifests.storage import Folder
from manifests.tables import Table

CONTENTS = "contents"
"""Name of the table's folder, next to those of the stages."""

LENGTH, SHA256 = "seen_bytes", "seen_sha256"

_REMEDY = "copy it back; if you delete it, images that have changed since they were first read are no longer noticed"

_SCHEMA = table_schema(
    pa.schema(
        [
            column(LENGTH, pa.int64(), "Length of the encoded image when it was first read, in bytes", 0),
            column(SHA256, pa.binary(), "SHA-256 of the encoded image when it was first read, 32 bytes"),
        ]
    )
)


def contents_table(run: Folder) -> Table:
    """Return the contents table of the run in the folder `run`."""
    return Table(run.join("stages").join(CONTENTS), _SCHEMA, remedy=_REMEDY)


def content_rows(ids: Sequence[int], contents: Sequence[tuple[int, bytes] | None]) -> pa.Table:
    """Return rows of the table from lengths and SHA-256 hashes. An image with None could not be read and is retried."""
    columns = {
        "id": pa.array(ids, pa.int64()),
        LENGTH: pa.array([content and content[0] for content in contents], pa.int64()),
        SHA256: pa.array([content and content[1] for content in contents], pa.binary()),
        "error": pa.nulls(len(ids), pa.string()),
        "retry": pa.array([content is None for content in contents], pa.bool_()),
    }
    return pa.table(columns)
