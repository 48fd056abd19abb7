"""Receives webhooks: verifies a delivery, and stores it as an event before it is acknowledged."""

from __future__ import annotations

import secrets as random
import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import event_codec
from penstock_contracts.event_codec import InvalidEventError
from penstock_contracts.waits import EventAccepted
from penstock_core.deployments import webhooks
from penstock_core.deployments.definition import WebhookTrigger, event_subject
from penstock_core.deployments.events import WEBHOOK, Event
from penstock_core.deployments.webhooks import InvalidDeliveryError, UnusableSecretError
from penstock_core.errors import UnavailableError
from penstock_gateway.errors import UnprocessableError, UnverifiedError
from penstock_gateway.http import bodies
from penstock_gateway.named_secrets import DeploymentSecrets

_FORM = "application/x-www-form-urlencoded"


class WebhookReceiver:
    """See the module. `admit` raises GatewayError if a project is archived, or has used up its quota of events."""

    def __init__(
        self,
        deployments: DeploymentLog,
        events: EventStream,
        secrets: DeploymentSecrets,
        logger: FilteringBoundLogger,
        admit: Callable[[str], None],
    ) -> None:
        self._deployments = deployments
        self._admit = admit
        self._secrets = secrets
        self._events = events
        self._logger = logger

    async def trigger(self, project: str, name: str, trigger: str | None) -> WebhookTrigger | None:
        """Return the webhook trigger of a deployment, the only one if none is named; None if there is no such one."""
        deployment = await self._deployments.get(project, name)
        definition = deployment.current.definition if deployment.current else None
        found = [
            one
            for one in (definition.triggers if definition is not None else ())
            if isinstance(one, WebhookTrigger) and trigger in (None, one.name)
        ]
        if len(found) == 1:
            return found[0]
        why = "the path lacks the name of the trigger: there are several" if found else "there is no such webhook"
        self._logger.info("webhook refused", project=project[:100], deployment=name[:100], reason=why)
        return None

    async def receive(
        self, project: str, deployment: str, trigger: WebhookTrigger | None, headers: Mapping[str, str], body: bytes
    ) -> EventAccepted:
        """Verify a delivery and store its event.

        A delivery to a path without a webhook gets the same answer as one with a wrong signature: otherwise anybody
        could find out which deployments have webhooks.

        Args:
            project: of the deployment.
            deployment: its name.
            trigger: its webhook; None if there is none at the path.
            headers: of the request, with lower-case names.
            body: of the request.

        Raises:
            UnverifiedError: there is no webhook, or it was not sent by somebody who knows the secret, or is too old.
            UnprocessableError: it is not of the form that the provider uses.
            ForbiddenError: the project is archived.
            TooManyRequestsError: the project has used up its quota of events.
            UnavailableError: the gateway does not have the secret, or the event cannot be stored; a retry may help.
        """
        if trigger is None:
            raise _unverified()
        try:
            secret = await self._secrets.read(trigger, project, deployment)
            verified = webhooks.verify(trigger.verification, secret, headers, body, time.time())
        except UnusableSecretError as error:
            self._logger.error(
                "the secret of a webhook cannot be used", deployment=deployment, trigger=trigger.name, error=str(error)
            )
            raise UnavailableError("the gateway cannot use the secret of this webhook: see its log") from error
        if not verified:
            self._logger.info(
                "webhook refused",
                deployment=deployment,
                trigger=trigger.name,
                reason=f"its signature or token is missing, wrong or too old: check the secret and the clock of "
                f"{trigger.provider.value}",
            )
            raise _unverified()
        event = self._event(project, deployment, trigger, headers, body)
        self._admit(project)
        sequence, duplicate = await self._events.publish(event)
        return EventAccepted(
            id=event.id,
            source=event.source,
            type=event.type,
            sequence=sequence,
            digest=event.digest,
            duplicate=duplicate,
        )

    def _event(
        self, project: str, deployment: str, trigger: WebhookTrigger, headers: Mapping[str, str], body: bytes
    ) -> Event:
        whole = bodies.parse_json(_json(headers, body))
        subject = event_subject(deployment, trigger.name)
        origin = f"penstock/webhooks/{subject}"
        try:
            found = webhooks.read(trigger.provider, headers, whole, origin, trigger.id_header)
            data, omitted = webhooks.shrink(whole, event_codec.DATA_LIMIT)
            attributes = {
                "type": found.type,
                "source": found.source,
                # Providers send one delivery, with one id, to each of their webhooks.
                "id": f"{subject}/{found.id or random.token_hex(16)}",
                "subject": subject,
                WEBHOOK: subject,
                **({"omitted": ",".join(omitted)} if omitted else {}),
            }
            return event_codec.event(project, attributes, data)
        except InvalidDeliveryError as error:
            raise UnprocessableError("The webhook cannot be read", str(error)) from error
        except InvalidEventError as error:
            raise UnprocessableError("The webhook cannot be stored", str(error), errors=error.errors) from error


def _unverified() -> UnverifiedError:
    return UnverifiedError(
        "No webhook accepts this delivery",
        "check its path, and the secret and the clock of its sender; the log of the gateway says which is wrong",
    )


def _json(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the JSON of a body; GitHub may send it as a field of a form."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
        return fields.get("payload", [""])[0].encode()
    return body
