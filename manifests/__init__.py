"""Run directories, tables of facts, rules and verdicts. This package needs neither Ray nor torch.

>>> from manifests import open_run
>>> run = open_run("RUN")
>>> run.funnel()
>>> run.manifest().filter(pl.col("status") == "dropped").collect()
>>> run.sweep(aspect_ratio={"max": [2, 2.5]})
>>> run.explain("a.jpg")
"""

from manifests.explain import Account, StageAccount
from manifests.funnel import Funnel, FunnelStage, funnel
from manifests.run import Run, open_run

__all__ = ["Account", "Funnel", "FunnelStage", "Run", "StageAccount", "funnel", "open_run"]
