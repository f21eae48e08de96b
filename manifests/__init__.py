"""Run directories, tables of facts, rules and verdicts. This package needs neither Ray nor torch.

>>> from manifests import open_run
>>> open_run("RUN").manifest().filter(pl.col("status") == "dropped").collect()
"""

from manifests.funnel import Funnel, FunnelStage, funnel
from manifests.run import Run, open_run

__all__ = ["Funnel", "FunnelStage", "Run", "funnel", "open_run"]
