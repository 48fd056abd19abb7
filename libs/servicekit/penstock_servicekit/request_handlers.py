"""Commands: requests on NATS that a service answers, by FastStream. Replicas share them.

Promise: every request gets an answer. What cannot be read, or fails, is answered with its error, so that the one who
asked learns of it at once instead of waiting for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pydantic
from faststream import AckPolicy
from faststream.nats.message import NatsMessage

from penstock_core.errors import PenstockError
from penstock_core.ports import UnavailableError
from penstock_servicekit.service_context import ServiceContext

WORKERS = 32

Command = TypeVar("Command", bound=pydantic.BaseModel)


def answer(
    context: ServiceContext,
    subject: str,
    command: type[Command],
    handle: Callable[[Command], Awaitable[pydantic.BaseModel]],
    problem: Callable[[str, bool], pydantic.BaseModel],
) -> None:
    """Answer requests on `subject`, several at the same time. `problem` makes the reply to what went wrong.

    Its arguments are the error and whether trying again later may help.
    """

    async def receive(body: bytes) -> bytes:
        try:
            reply = await handle(command.model_validate_json(body))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            context.log.warning("unreadable request", subject=subject, field=where, error=first["msg"])
            reply = problem(f"the request is not valid: {where}: {first['msg']}", False)
        except PenstockError as error:
            context.log.warning("request failed", subject=subject, error=str(error))
            reply = problem(str(error), isinstance(error, UnavailableError))
        except Exception as error:
            context.log.exception("request failed", subject=subject)
            reply = problem(f"the {context.service} service failed ({type(error).__name__}); its log says more", True)
        return reply.model_dump_json().encode()

    # A raw body: FastStream drops a request that does not fit its handler's type without an answer.
    context.broker.subscriber(
        subject, queue=context.service, ack_policy=AckPolicy.MANUAL, decoder=_raw, max_workers=WORKERS
    )(receive)


async def _raw(message: NatsMessage) -> bytes:
    return message.body
