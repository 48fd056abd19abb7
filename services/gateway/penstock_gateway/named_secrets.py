"""The secrets of webhooks and notifications, which deployments refer to by name."""

from __future__ import annotations

from collections.abc import Callable

from penstock_adapters.secrets.resolver import Secrets
from penstock_core.deployments import webhooks
from penstock_core.deployments.definition import Problem, WebhookTrigger
from penstock_core.deployments.notify_rules import NotifyRule
from penstock_core.deployments.webhooks import UnusableSecretError
from penstock_core.errors import InputError
from penstock_core.secrets import references
from penstock_core.secrets.records import SecretError, SecretUser


class DeploymentSecrets:
    """Reads the secrets that deployments may use."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def read(self, user: WebhookTrigger | NotifyRule, project: str, deployment: str) -> bytes:
        """Return the secret that a trigger or a rule of a deployment refers to, as it is now.

        Raises:
            UnusableSecretError: it does not exist, or the deployment may not use it. The message has no part of it.
            UnavailableError: its source does not answer; trying again may help.
        """
        by = f"deployment {deployment}, {user.name}" if deployment else f"project {project}, {user.name}"
        try:
            reference = references.parse(user.secret)
            found = await self._secrets.resolve(reference, SecretUser(project=project, deployment=deployment), by)
        except (SecretError, InputError) as error:
            raise UnusableSecretError(str(error)) from error
        return found.value.encode()

    async def problems(
        self, user: WebhookTrigger | NotifyRule, project: str, deployment: str, usable: Callable[[bytes], object]
    ) -> list[Problem]:
        """Return the problem of a secret that cannot be used now, with its field.

        Args:
            user: refers to the secret.
            project: of the deployment.
            deployment: its name.
            usable: raises `UnusableSecretError` if a secret cannot be used.

        Raises:
            UnavailableError: the source of the secret does not answer.
        """
        if [*webhooks.secret_problems(user.secret)]:
            return []  # the definition is invalid
        try:
            usable(await self.read(user, project, deployment))
        except UnusableSecretError as error:
            return [("secret", str(error))]
        return []
