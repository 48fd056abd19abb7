"""`python -m penstock_servicekit.probe`: exits with 0 if the service in this container is ready, otherwise with 1.

For the health checks of container engines, whose images have no HTTP client. It runs every few seconds in each
container, so it imports next to nothing.
"""

from __future__ import annotations

import os
import socket
import sys

_TIMEOUT = 8.0
_ANY = "0.0.0.0"  # noqa: S104 - the address that the service listens on


def main() -> int:
    """Ask `/readyz` on `PENSTOCK_HEALTH_PORT`; print the answer."""
    port = os.environ.get("PENSTOCK_HEALTH_PORT", "")
    if not port.isdecimal():
        sys.stderr.write("PENSTOCK_HEALTH_PORT is not set: the service has no /readyz\n")
        return 1
    host = os.environ.get("PENSTOCK_HEALTH_HOST", "127.0.0.1")
    try:
        with socket.create_connection(("127.0.0.1" if host == _ANY else host, int(port)), _TIMEOUT) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answer = b""
            while part := connection.recv(65536):  # the service closes the connection
                answer += part
    except OSError as error:
        sys.stderr.write(f"/readyz on port {port} does not answer: {error}\n")
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    sys.stdout.write(body.decode(errors="replace"))
    return 0 if head.startswith(b"HTTP/1.1 200") else 1


if __name__ == "__main__":
    sys.exit(main())
