"""The pytest plugin: fixtures for tests of steps and pipelines. It is loaded by every pytest beside an installation."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from penstock.testing import Isolated


@pytest.fixture
def penstock_testing() -> Generator[Isolated]:
    """A context of the test's own, in which steps can be replaced; see `penstock.testing.Isolated`."""
    # Imported only by tests that use it: this plugin is loaded into all of them.
    from penstock import testing

    with testing.isolate() as isolated:
        yield isolated
