"""The alert rules and the dashboard: valid, and only with metrics that services have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import penstock_adapters.metrics
import penstock_artifacts.retention.janitor
import penstock_executor.app
import penstock_gateway.http.metrics
import penstock_scheduler.app
from penstock_servicekit import metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/penstock.json"
MODULES = (
    penstock_adapters.metrics,
    penstock_artifacts.retention.janitor,
    penstock_executor.app,
    penstock_gateway.http.metrics,
    penstock_scheduler.app,
    metrics,
)


def names(text: str) -> set[str]:
    """The metrics of Penstock that a text names, without the endings of counters and histograms."""
    return {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in re.findall(r"\bpenstock_[a-z_]+", text)}


def declared() -> set[str]:
    sources = "".join(Path(str(module.__file__)).read_text() for module in MODULES)
    return set(re.findall(r'"(penstock_[a-z_]+)"', sources))


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_only_metrics_that_exist_are_used(path: Path) -> None:
    assert names(path.read_text()) - declared() == set()


def test_panels_of_the_dashboard_are_complete() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["title"] and panel["targets"], panel
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"]), panel[
            "title"
        ]


def test_each_alert_has_a_section_in_the_runbook() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    sections = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in runbook.splitlines()
        if line.startswith("#")
    }
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert {rule["annotations"]["runbook"].partition("#")[2] for rule in rules} <= sections


def test_alert_rules_fire_when_they_should() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no executable 'promtool': install the package 'prometheus'")
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
