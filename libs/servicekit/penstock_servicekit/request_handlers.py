"""Requests on NATS that a service answers: typed FastStream subscribers, which the replicas of the service share.

Promise: every request gets a reply. A request that is invalid, or whose handler fails, is answered with its error, so
that the caller learns of it at once instead of waiting for its timeout.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import pydantic
from faststream import AckPolicy, BaseMiddleware
from faststream.message import StreamMessage
from faststream.nats import NatsRouter

from penstock_core.errors import PenstockError, UnavailableError
from penstock_servicekit.service_context import ServiceContext

WORKERS = 32

Request = TypeVar("Request", bound=pydantic.BaseModel)
Reply = TypeVar("Reply", bound=pydantic.BaseModel)
Message = TypeVar("Message", bound=pydantic.BaseModel)


def answer(
    context: ServiceContext,
    subject: str,
    handle: Callable[[Request], Awaitable[Reply]],
    error_reply: Callable[[str, bool], Reply],
) -> None:
    """Answer the requests on a subject, up to `WORKERS` at the same time.

    Args:
        context: the service; its name is the queue group of the replicas.
        subject: the subject.
        handle: handles a request. The models of request and reply are those of its annotations.
        error_reply: makes a reply from the text of an error, and whether the caller may try again later.
    """
    router = NatsRouter(middlewares=[partial(_ErrorReplies, service=context, subject=subject, error_reply=error_reply)])
    # Messages of core NATS have no acknowledgement. FastStream's default policy would try to reject failed ones.
    subscriber = router.subscriber(subject, queue=context.service, ack_policy=AckPolicy.MANUAL, max_workers=WORKERS)
    subscriber(handle)
    context.broker.include_router(router)


def listen(context: ServiceContext, subject: str, handle: Callable[[Message], Awaitable[None]]) -> None:
    """Handle the messages on a subject, in every replica. Invalid ones, and those whose handler fails, are logged."""
    router = NatsRouter(middlewares=[partial(_ErrorReplies, service=context, subject=subject, error_reply=_no_reply)])
    router.subscriber(subject, ack_policy=AckPolicy.MANUAL, no_reply=True)(handle)
    context.broker.include_router(router)


def _no_reply(error: str, retryable: bool) -> None:
    return None


class _ErrorReplies(BaseMiddleware):
    """Replies to requests that FastStream cannot validate, or whose handler raised; by itself it gives no reply."""

    def __init__(
        self,
        msg: Any | None,
        /,
        *,
        context: Any,
        service: ServiceContext,
        subject: str,
        error_reply: Callable[[str, bool], pydantic.BaseModel | None],
    ) -> None:
        super().__init__(msg, context=context)
        self._service = service
        self._subject = subject
        self._error_reply = error_reply

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:
        log = self._service.log
        try:
            return await call_next(msg)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"][1:]) or "body"
            log.warning("invalid request", subject=self._subject, field=where, error=first["msg"])
            return self._error_reply(f"the request is not valid: {where}: {first['msg']}", False)
        except PenstockError as error:
            log.warning("request failed", subject=self._subject, error=str(error))
            return self._error_reply(str(error), isinstance(error, UnavailableError))
        except Exception as error:
            log.exception("request failed", subject=self._subject)
            service = self._service.service
            return self._error_reply(f"the {service} service failed ({type(error).__name__}); see its log", True)
