"""What every source of secrets promises."""

from __future__ import annotations

from abc import abstractmethod

import pytest

from penstock_core.secrets.records import VALUE_LIMIT, SecretSource

PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END KEY-----"


class SecretSourceSuite:
    """Inherit from it, with a fixture `source` and how to fill it."""

    project = "default"

    @abstractmethod
    async def fill(self, source: SecretSource, name: str, value: str) -> None:
        """Give the source a secret of `project`."""

    async def _value(self, source: SecretSource, name: str) -> str | None:
        record = await source.record(self.project, name)
        if record is None or record.latest is None:
            return None
        found = await source.value(self.project, name, record.latest.number)
        return found.value if found is not None else None

    @pytest.mark.parametrize("value", ["hunter2!", PEM, "grüße  ✓", '{"a": "b\\n"}', "x" * VALUE_LIMIT])
    async def test_a_value_is_returned_as_it_was_given(self, source: SecretSource, value: str) -> None:
        """Also one of several lines, and the largest."""
        await self.fill(source, "db", value)
        assert await self._value(source, "db") == value

    async def test_a_record_has_the_source_and_no_value(self, source: SecretSource) -> None:
        """Records may be shown."""
        await self.fill(source, "shown", "hunter2!")
        record = await source.record(self.project, "shown")
        assert record is not None and (record.name, record.source, record.project) == (
            "shown",
            source.name,
            self.project,
        )
        assert "hunter2" not in repr(record)

    async def test_records_are_listed_by_name(self, source: SecretSource) -> None:
        """Each once."""
        for name in ("zeta", "alpha"):
            await self.fill(source, name, "hunter2!")
        names = [record.name for record in await source.records(self.project)]
        assert names == sorted(names) and {"alpha", "zeta"} <= set(names)

    async def test_what_is_not_there_is_none(self, source: SecretSource) -> None:
        """It is no error."""
        assert await source.record(self.project, "missing") is None
        assert await source.value(self.project, "missing", 1) is None

    async def test_another_project_has_nothing_of_it(self, source: SecretSource) -> None:
        """Names are unique in a project only."""
        await self.fill(source, "mine", "hunter2!")
        assert await source.record("other", "mine") is None
        assert await source.value("other", "mine", 1) is None
        assert "mine" not in [record.name for record in await source.records("other")]

    @pytest.mark.parametrize("name", ["../db", "a/b", ".", "..", "a.b", ""])
    async def test_a_name_is_no_path(self, source: SecretSource, name: str) -> None:
        """Nor a pattern of subjects."""
        await self.fill(source, "db", "hunter2!")
        assert await source.record(self.project, name) is None
        assert await source.value(self.project, name, 1) is None
