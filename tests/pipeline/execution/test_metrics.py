"""Metrics: a bounded number of reasons, and a dashboard that names each of them. tests/cluster scrapes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipeline.execution.metrics import COUNTERS, GAUGES, Metrics
from pipeline.execution.reasons import OTHER, count_reasons
from pipeline.execution.receipts import receipt
from pipeline.execution.tally import Tally

ROOT = Path(__file__).parents[3]
EXPORTED = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}


def test_reasons_of_a_stage_are_bounded() -> None:
    tally, metrics = Tally(), Metrics("download")
    for number in range(50):
        tally.add(receipt(2, 2, reasons=count_reasons([f"HTTP {number}: a", f"HTTP {number}: b"])))
        counters = metrics.counters(tally)
    errors = {reason: value for (name, reason), value in counters.items() if name == "vl3syn_errors"}
    assert len(errors) == 21
    assert errors["HTTP 0"] == 2
    assert errors[OTHER] == 60


def test_dashboard_shows_each_metric_and_no_other() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/vl3syn.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert set(re.findall(r"ray_vl3syn_\w+", " ".join(queries))) == EXPORTED


def test_dashboard_has_what_grafana_needs_to_import_it() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/vl3syn.json").read_text())
    assert dashboard["schemaVersion"] >= 36
    assert {"title", "uid", "time", "templating"} <= dashboard.keys()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        assert {"type", "title", "gridPos", "datasource", "targets"} <= panel.keys()
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
        assert panel["gridPos"].keys() == {"h", "w", "x", "y"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_page_lists_each_metric() -> None:
    page = (ROOT / "docs/watching.md").read_text()
    rows = re.findall(r"^\| `(ray_vl3syn_\w+)`", page, re.M)
    assert sorted(rows) == sorted(EXPORTED)
