"""A package index on loopback (PEP 503) with wheels that are made on the spot."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PackageIndex:
    """An index whose `url` ends in `/simple`.

    Attributes:
        downloads: names of the wheels that were downloaded, in order.
        open: while it is cleared, downloads do not end.
        waiting: set when a download begins.
    """

    def __init__(self) -> None:
        self.downloads: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()
        self._wheels: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> PackageIndex:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """URL of the index."""
        return f"http://127.0.0.1:{self._server.server_port}/simple"

    def add(
        self, name: str, version: str, code: str = "", requires: tuple[str, ...] = (), module: str | None = None
    ) -> None:
        """Add a wheel with one module, by default called like it; one of the same name and version is replaced."""
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files = {
            f"{module or name}.py": code or f"VERSION = {version!r}\n",
            f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {line}\n" for line in requires),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for path, text in files.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        self._wheels[f"{name}-{version}-py3-none-any.whl"] = data.getvalue()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                last = self.path.rstrip("/").rpartition("/")[2]
                if last in index._wheels:
                    if self.command == "GET":
                        index.waiting.set()
                        index.open.wait(60)
                        index.downloads.append(last)
                    self._answer(index._wheels[last], "application/zip")
                    return
                wheels = {name: data for name, data in index._wheels.items() if name.startswith(f"{last}-")}
                links = "".join(
                    f'<a href="/files/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>\n'
                    for name, data in wheels.items()
                )
                self._answer(links.encode(), "text/html", 200 if wheels else 404)

            def _answer(self, body: bytes, kind: str, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
