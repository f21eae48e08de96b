"""What a model was trained on, as its export and its checkpoints store it: the samples' number, and fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

FINGERPRINT = "source {}"
"""Name of a source's fingerprint in `data`."""


@dataclass(frozen=True)
class TrainedData:
    """The data of a training. Held-out samples are known of these only. Earlier versions did not store all of it.

    Attributes:
        rows: Number of samples of each source, by its name.
        data: Fingerprints, by `FINGERPRINT`.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def stored(cls, by: Mapping[str, Any]) -> Self:
        """Return what the provenance of an export, or the state of a checkpoint, says of it."""
        return cls(dict(by.get("rows", {})), dict(by.get("data", {})))

    def then(self, later: TrainedData) -> TrainedData:
        """Return these data with those of a later stage."""
        return TrainedData({**self.rows, **later.rows}, {**self.data, **later.data})

    def fingerprint(self, source: str) -> str | None:
        """Return the fingerprint of a source; None if it is not known."""
        return self.data.get(FINGERPRINT.format(source))

    def change(self, now: TrainedData, source: str) -> str | None:
        """Return in words how a source differs now; None if it does not, or one of the two does not know it."""
        old, new = self.rows.get(source), now.rows.get(source)
        if None not in (old, new) and old != new:
            return f"had {old} samples and has {new}"
        prints = self.fingerprint(source), now.fingerprint(source)
        return "has changed" if None not in prints and prints[0] != prints[1] else None
