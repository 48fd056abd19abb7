"""Which arguments of `penstock run` name a registered pipeline."""

from __future__ import annotations

import pytest

from penstock_cli.errors import UsageError
from penstock_cli.runs import published
from penstock_cli.runs.published import Reference


def test_names_with_and_without_versions() -> None:
    assert published.parse("sales") == Reference("sales")
    assert published.parse("sales@3") == Reference("sales", 3)
    assert published.parse("sales.py") is None
    with pytest.raises(UsageError, match="number of a version"):
        published.parse("sales@prod")


def test_a_source_in_git_is_registered_first() -> None:
    with pytest.raises(UsageError, match=r"penstock register 'git\+https://host/repo@main'"):
        published.parse("git+https://host/repo@main")
