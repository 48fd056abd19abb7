"""The secrets of an attempt, resolved where it starts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from penstock_adapters.secrets.resolver import Secrets
from penstock_core.facts import AttemptRequested
from penstock_core.secrets import given, references
from penstock_core.secrets.given import GivenSecrets
from penstock_core.secrets.records import SecretError, SecretUser


class StepSecrets:
    """Resolves the secrets of attempts.

    Args:
        secrets: all secrets.
        passed: whether a variable of this process may be passed through to steps.
    """

    def __init__(self, secrets: Secrets, passed: Callable[[str], bool]) -> None:
        self._secrets = secrets
        self._passed = passed

    async def given(self, attempt: AttemptRequested) -> GivenSecrets:
        """Return the secrets of an attempt, as they are now.

        Raises:
            SecretError: one is missing, or the pipeline may not use it.
            UnavailableError: a source does not answer; trying again may help.
        """
        if not attempt.secrets:
            return GivenSecrets()
        user = SecretUser(project=attempt.project, pipeline=attempt.pipeline)
        by = f"run {attempt.run_id}, step {attempt.key}"
        values: dict[str, str] = {}
        for text in attempt.secrets:
            if variable := references.passed(text):
                values[text] = self._variable(variable)
            else:
                values[text] = (await self._secrets.resolve(references.parse_use(text).reference, user, by)).value
        return await asyncio.to_thread(given.give, values)

    def _variable(self, name: str) -> str:
        if not self._passed(name):
            raise SecretError(
                f"the variable {name} may not be passed through to steps: add it to PENSTOCK_STEP_ENV of the executor"
            )
        if name not in os.environ:
            raise SecretError(
                f"the executor has no variable {name}: start it, or the platform, where the variable is set"
            )
        value = os.environ[name]
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # bytes that are no UTF-8
            raise SecretError(f"the variable {name} of the executor is not text: encode binary data with Base64")
        return value
