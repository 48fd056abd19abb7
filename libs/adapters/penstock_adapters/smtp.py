"""Sends e-mails by an SMTP server."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Generator, Sequence
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from penstock_core.errors import PenstockError
from penstock_core.frozen import frozen

_PORTS = {"smtp": 587, "smtps": 465}


class MailError(PenstockError):
    """An e-mail was not accepted. The message contains no password."""


@frozen(kw_only=True)
class Mail:
    """An e-mail. `id` identifies it for its receivers, `at` is its time in Unix seconds."""

    id: str
    sender: str
    to: Sequence[str]
    subject: str
    text: str
    at: float


class MailServer:
    """An SMTP server, `smtp://USER:PASSWORD@HOST:587` (with STARTTLS if there is a user) or `smtps://…:465`.

    Args:
        url: of the server.
        timeout: seconds that the server has for each answer.
        limit: seconds after which the connection is closed, whatever the server does: a caller that gave up alone would
            send an e-mail again that is still being sent.

    Raises:
        ValueError: it is no such URL. The message does not contain it.
    """

    def __init__(self, url: str, timeout: float = 10.0, limit: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
            raise ValueError("must be smtp://USER:PASSWORD@HOST:PORT or smtps://…")
        self._scheme = parts.scheme
        self._host = parts.hostname
        self._port = parts.port or _PORTS[parts.scheme]
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._timeout = timeout
        self._limit = limit

    def send(self, mail: Mail) -> list[str]:
        """Send an e-mail. Blocks. Returns the addresses that the server refused, if it accepted others.

        Raises:
            MailError: the server cannot be reached, or did not accept it for anybody.
        """
        message = EmailMessage(policy=SMTP_POLICY)
        message["From"] = mail.sender
        message["To"] = ", ".join(mail.to)
        message["Subject"] = mail.subject
        message["Date"] = formatdate(mail.at)
        message["Message-ID"] = f"<{mail.id}@{mail.sender.rpartition('@')[2].strip('> ')}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        context = ssl.create_default_context()
        try:
            server = self._server(context)
            with _closed_after(server, self._limit), server:
                self._check(server.connect(self._host, self._port))
                server.ehlo()
                if self._scheme == "smtp" and (self._user or server.has_extn("starttls")):
                    # With a password, an answer without STARTTLS is an error: it must not travel in the clear.
                    server.starttls(context=context)
                if self._user:
                    server.login(self._user, self._password)
                return [*server.send_message(message, mail.sender, list(mail.to))]
        except (OSError, smtplib.SMTPException, UnicodeError) as error:
            raise MailError(f"the SMTP server did not accept it: {_reason(error)}") from error

    def _server(self, context: ssl.SSLContext) -> smtplib.SMTP:
        """Return an object that is not connected yet: its constructor would wait for the server without a limit."""
        if self._scheme == "smtps":
            found: smtplib.SMTP = smtplib.SMTP_SSL(timeout=self._timeout, context=context)
        else:
            found = smtplib.SMTP(timeout=self._timeout)
        found._host = self._host  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage] - the name in the certificate, which only the constructor sets
        return found

    @staticmethod
    def _check(greeting: tuple[int, bytes]) -> None:
        code, text = greeting
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)


@contextlib.contextmanager
def _closed_after(server: smtplib.SMTP, seconds: float) -> Generator[None]:
    """Close the connection after a time. What waits for the server fails then."""

    def close() -> None:
        if server.sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(server.sock, socket.SHUT_RDWR)  # below TLS, whose own one is not thread-safe

    timer = threading.Timer(seconds, close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return f"{error.smtp_code} {text}"[:300]
    return f"{type(error).__name__}: {error}"[:300]
