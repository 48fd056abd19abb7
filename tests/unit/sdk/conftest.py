"""Helper modules of these tests must be importable by name, as users' modules are."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sdk_user_modules import UserModules

from penstock.step_context.contexts import set_context
from penstock.store import FolderStore


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    """Remove the context left by an attempt in this process; normally the attempt's process exits."""
    yield
    set_context(None)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "artifacts")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserModules:
    monkeypatch.syspath_prepend(tmp_path)
    return UserModules(tmp_path)
