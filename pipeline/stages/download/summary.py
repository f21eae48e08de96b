"""What a job of the stage `download` has fetched, in a line or two for the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow.compute as pc

from manifests.part_files import writer_of
from manifests.tables import Table
from pipeline.stages.download.columns import DESCRIBED


def summary(table: Table, writer: str, seconds: float) -> Sequence[str]:
    """Return lines about a job: images, bytes and speed; the share of each kind of failure; sizes that differ.

    Args:
        table: The table of the stage.
        writer: The name of the job.
        seconds: Its time, from the first URL to the last one.
    """
    rows = images = bytes_ = differ = 0
    failures: Counter[str] = Counter()
    names = [part.name for part in table.list_files().parts if writer_of(part.name) == writer]
    for _, part in table.read_each(names, [DESCRIBED["bytes"], "size_differs", "error"]):
        rows += part.num_rows
        images += part["error"].null_count
        bytes_ += pc.sum(part[DESCRIBED["bytes"]]).as_py() or 0
        differ += pc.sum(part["size_differs"]).as_py() or 0
        failures.update(error.partition(":")[0] for error in part["error"].drop_null().to_pylist())
    seconds = max(seconds, 1e-3)
    speed = f"{images / seconds:,.1f} images/s, {bytes_ / seconds / 1e6:,.1f} MB/s"
    lines = [f"{images:,} images, {bytes_ / 1e6:,.1f} MB; {speed}"]
    if failures:
        kinds = ", ".join(f"{kind} {count / rows:.1%}" for kind, count in failures.most_common())
        lines.append(f"failed: {sum(failures.values()) / rows:.1%} ({kinds})")
    if differ:
        lines.append(f"{differ:,} images have another size than the list says (size_differs)")
    return lines
