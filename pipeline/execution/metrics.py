"""Metrics of the jobs of a run, exported by Ray's own exporter: docs/watching.md. Without Ray there are none."""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache
from typing import Any

from pipeline.execution.reasons import OTHER
from pipeline.execution.tally import Tally

COUNTERS = {
    "vl3syn_rows": "Rows that were stored",
    "vl3syn_errors": "Stored rows that failed, by the words of their error before the first colon",
    "vl3syn_bytes_read": "Bytes of images that were read or downloaded",
    "vl3syn_caption_tokens": "Tokens of the captions that were stored",
}
"""Counters and their meaning. Ray's exporter adds `ray_` in front and `_total` at the end."""

GAUGES = {
    "vl3syn_rows_per_second": "Rows per second, from the first row that a worker took to the last one stored",
    "vl3syn_model_idle_share": "Share of the workers' time in which their model waited for images",
    "vl3syn_rows_waiting": "Rows (in the index: files) that are not stored yet",
}
"""Gauges and their meaning. Ray's exporter adds `ray_` in front."""

TAGS = ("stage", "ray_job")
"""Tags of each metric: the name of the stage, and Ray's id of the job (`job` is a label of Prometheus's own). Errors
have the tag `reason`, too."""

_MOST_REASONS = 20  # of a stage; each is a time series in Prometheus for as long as it keeps data


class Metrics:
    """The metrics of one stage."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._counted = Counter[tuple[str, str]]()
        self._reasons: set[str] = set()

    def update(self, tally: Tally, waiting: int) -> None:
        """Export the numbers of a job, if Ray runs in this process; else they follow when it does.

        Call it every few seconds: Ray's exporter forgets a gauge that is not set again for 20 seconds.

        Args:
            tally: The receipts so far.
            waiting: Rows that are not done.
        """
        if sys.modules.get("ray") is None:
            return
        import ray  # waits if another thread is just importing it

        if not ray.is_initialized():
            return
        tags = {"stage": self._stage, "ray_job": ray.get_runtime_context().get_job_id()}
        for (name, reason), value in self.counters(tally).items():
            if added := value - self._counted[name, reason]:
                _metric(name).inc(added, tags={**tags, "reason": reason} if reason else tags)
                self._counted[name, reason] = value
        gauges = {
            "vl3syn_rows_per_second": tally.rate,
            "vl3syn_model_idle_share": tally.idle,
            "vl3syn_rows_waiting": waiting,
        }
        for name, now in gauges.items():
            if now is not None:
                _metric(name).set(now, tags=tags)

    def counters(self, tally: Tally) -> Counter[tuple[str, str]]:
        """Return the value of each counter, by its name and its reason (an empty text if it has none).

        The first 20 reasons have their names, the others are one, `other`.
        """
        counters = Counter(
            {
                ("vl3syn_rows", ""): tally.rows,
                ("vl3syn_bytes_read", ""): tally.bytes_read,
                ("vl3syn_caption_tokens", ""): tally.tokens,
            }
        )
        for reason, rows in tally.reasons.items():
            if len(self._reasons) < _MOST_REASONS:
                self._reasons.add(reason)
            counters["vl3syn_errors", reason if reason in self._reasons else OTHER] += rows
        return counters


@cache
def _metric(name: str) -> Any:
    """Return the metric of this process with a name: it must be made once."""
    from ray.util.metrics import Counter, Gauge

    if name in GAUGES:
        return Gauge(name, GAUGES[name], TAGS)
    return Counter(name, COUNTERS[name], (*TAGS, "reason") if name == "vl3syn_errors" else TAGS)
