"""The recorder: scenarios run as recorded, and new histories can be replayed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import orjson
import pytest

from penstock_testkit import histories
from penstock_testkit.servers.cluster import Cluster

HERE = Path(__file__).parent
NAMES = ["chain", "failure", "retries", "by_reference", "sub_pipeline", "cancel_before_start", "unreadable_early_end"]
NAMES += ["mapped", "condition_nested", "rules_failure", "asked_yes", "event", "run_pipeline"]
EXPECTED = json.loads((HERE / "expected.json").read_text())


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(HERE)  # its own modules
    spec = importlib.util.spec_from_file_location("histories_record", HERE / "record.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    yield module


def test_scenarios_still_run_as_recorded(recorder: ModuleType, tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        found = recorder.record(cluster, NAMES, tmp_path)
    assert list(found) == NAMES
    for name in NAMES:
        history = histories.load(tmp_path / f"{name}.jsonl")
        history.check()
        old = EXPECTED[name]
        assert history.states() == {key: step["status"] for key, step in old["steps"].items()}
        assert found[name]["outcome"] == old["outcome"]
        finished = history.fold().finished
        assert finished
        # The platform shows references as resolved values; the log, like old recordings, has references.
        outputs = orjson.loads(orjson.dumps(finished.outputs))
        assert histories.without_later_defaults(outputs) == histories.without_later_defaults(old["outputs"])
        assert history.run_id == histories.load(HERE / f"{name}.jsonl").run_id
