"""`python -m penstock_servicekit.probe`: exits with 0 if the service in this container is ready, otherwise with 1.

For the health checks of container engines, whose images have no HTTP client. It imports nothing of the service.
"""

from __future__ import annotations

import http.client
import os
import sys

_TIMEOUT = 3.0


def main() -> int:
    """Ask `/readyz` on `PENSTOCK_HEALTH_PORT`; print what is not ready."""
    port = os.environ.get("PENSTOCK_HEALTH_PORT", "")
    if not port.isdecimal():
        sys.stderr.write("PENSTOCK_HEALTH_PORT is not set: the service has no /readyz\n")
        return 1
    host = os.environ.get("PENSTOCK_HEALTH_HOST", "127.0.0.1")
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, int(port), timeout=_TIMEOUT)  # noqa: S104
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(10_000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"/readyz on port {port} does not answer: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(body)
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
