"""An SMTP server that never finishes keeps no thread for ever."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from penstock_adapters.smtp import Mail, MailError, MailServer


def test_a_server_that_answers_without_end_is_disconnected() -> None:
    """Each line of its answer arrives in time, so the time limit of an answer does not apply."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"220 hello\r\n")
                    while True:
                        connection.sendall(b"250-more\r\n")
                        time.sleep(0.05)
                except OSError:
                    return

        server = threading.Thread(target=drip, daemon=True)
        server.start()
        mail = Mail(id="msg_1", sender="p@example.com", to=["a@example.com"], subject="s", text="t", at=0.0)
        started = time.monotonic()
        with pytest.raises(MailError, match="did not accept it"):
            MailServer(f"smtp://127.0.0.1:{listener.getsockname()[1]}", timeout=20, limit=0.5).send(mail)
        assert time.monotonic() - started < 15
        server.join(20)
