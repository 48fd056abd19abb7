"""Limits of one name in several projects."""

from __future__ import annotations

from penstock_core.limits import slot_ledger


def test_limits_of_other_projects_have_the_project_in_their_name() -> None:
    assert slot_ledger.named("default", "gpu") == "gpu"
    assert slot_ledger.named("team", "gpu") == "team/gpu"
