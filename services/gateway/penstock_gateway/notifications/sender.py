"""Sends one notification, as its rule says: a signed webhook, a message to Slack, or an e-mail."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import orjson

from penstock_adapters import threads
from penstock_adapters.public_http import PublicHttp, RefusedAddressError, RequestFailedError, parse_networks
from penstock_adapters.smtp import Mail, MailError, MailServer
from penstock_core import notifications
from penstock_core.deployments import webhooks
from penstock_core.deployments.definition import Problem
from penstock_core.deployments.notify_rules import NotifyKind, NotifyRule, url_problem
from penstock_core.deployments.webhooks import UnusableSecretError
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.notifications import NotificationDue
from penstock_core.version import VERSION
from penstock_gateway.named_secrets import DeploymentSecrets
from penstock_gateway.settings import GatewaySettings

_MAIL_THREADS = 4
_GONE = 410


class NotSentError(PenstockError):
    """A notification was not accepted. If it is `final`, trying again would not help. The message has no secret."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        self.final = final
        super().__init__(message)


class NotificationSettingsError(PenstockError):
    """A setting of notifications is invalid. The message does not contain a password."""


def from_settings(settings: GatewaySettings, secrets: DeploymentSecrets) -> NotificationSender:
    """Return a sender as the gateway is configured.

    Raises:
        NotificationSettingsError: a setting is invalid.
    """
    url = settings.smtp_url.get_secret_value().strip() if settings.smtp_url else ""
    try:
        mail = MailServer(url) if url else None
    except ValueError as error:
        raise NotificationSettingsError(f"PENSTOCK_SMTP_URL {error}") from error
    try:
        networks = parse_networks(settings.notify_networks)
    except ValueError as error:
        raise NotificationSettingsError(f"PENSTOCK_NOTIFY_NETWORKS: {error}") from error
    return NotificationSender(PublicHttp(networks), mail, settings.mail_from, secrets)


class NotificationSender:
    """Sends notifications. `mail` is None if the platform has no SMTP server."""

    def __init__(
        self,
        http: PublicHttp,
        mail: MailServer | None,
        mail_from: str,
        secrets: DeploymentSecrets,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._mail = mail
        self._from = mail_from
        self._secrets = secrets
        self._clock = clock
        self._threads = ThreadPoolExecutor(_MAIL_THREADS, thread_name_prefix="mail") if mail is not None else None

    async def send(self, due: NotificationDue, rule: NotifyRule) -> list[str]:
        """Send a notification, and return the recipients that were refused although others were not.

        Raises:
            NotSentError: it was not accepted.
        """
        try:
            match rule.kind:
                case NotifyKind.WEBHOOK:
                    body = orjson.dumps(notifications.webhook_body(due, rule, _rfc3339(due.at)))
                    signed = webhooks.sign(await self._secret(due, rule), due.id, int(self._clock()), body)
                    await self._post(rule.url, signed, body)
                case NotifyKind.SLACK:
                    url = _slack_url(await self._secret(due, rule))
                    await self._post(url, {}, _json(notifications.slack_body(due, rule)))
                case NotifyKind.EMAIL:
                    return await self._send_mail(due, rule)
        except (UnusableSecretError, UnavailableError) as error:
            raise NotSentError(str(error)) from error
        return []

    async def _secret(self, due: NotificationDue, rule: NotifyRule) -> bytes:
        # A rule of the project can use what all of its deployments can.
        return await self._secrets.read(rule, due.project, due.deployment if due.scope == "deployment" else "")

    async def problems(self, rule: NotifyRule, project: str, deployment: str) -> list[Problem]:
        """Return what the platform lacks to send notifications of a rule of a deployment, or "" of the project.

        Raises:
            UnavailableError: the source of a secret does not answer.
        """
        match rule.kind:
            case NotifyKind.WEBHOOK:
                return await self._secrets.problems(rule, project, deployment, webhooks.standard_key)
            case NotifyKind.SLACK:
                return await self._secrets.problems(rule, project, deployment, _slack_url)
            case NotifyKind.EMAIL if self._mail is None:
                return [("kind", "the platform sends no e-mails: set PENSTOCK_SMTP_URL of the gateway")]
            case NotifyKind.EMAIL:
                return []

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        named = {**headers, "content-type": "application/json", "user-agent": f"Penstock/{VERSION}"}
        try:
            status = await self._http.post(url, named, body)
        except RefusedAddressError as error:
            raise NotSentError(str(error), final=True) from error
        except RequestFailedError as error:
            raise NotSentError(str(error)) from error
        if 300 <= status < 400:
            raise NotSentError(f"the server answered {status}: redirects are not followed")
        if not 200 <= status < 300:
            raise NotSentError(f"the server answered {status}", final=status == _GONE)

    async def _send_mail(self, due: NotificationDue, rule: NotifyRule) -> list[str]:
        if self._mail is None:
            raise NotSentError("the platform sends no e-mails: set PENSTOCK_SMTP_URL of the gateway")
        mail = Mail(
            id=due.id,
            sender=self._from,
            to=rule.to,
            subject=notifications.subject(due, rule),
            text=notifications.text(due, rule),
            at=due.at,
        )
        try:
            # Threads of its own: a slow server keeps nothing else waiting. It is waited for, also if this is cancelled:
            # the e-mail would be sent again while it is still being sent.
            return await threads.run(self._threads, self._mail.send, mail)
        except MailError as error:
            raise NotSentError(str(error)) from error


def _slack_url(secret: bytes) -> str:
    url = secret.decode("utf-8", "replace").strip()
    if url_problem(url):
        raise UnusableSecretError("the secret of a Slack notification is the URL of an incoming webhook")
    return url


def _json(body: object) -> bytes:
    return orjson.dumps(body)


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
