"""`Client.runs.export` over a connection that breaks: the file is complete or absent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from penstock import Client
from penstock.errors import NotFoundError, UnreachableError

LINES = [b'{"penstock_history":1}\n', *(b'{"seq":%d}\n' % n for n in range(50))]


class Handler(BaseHTTPRequestHandler):
    """Breaks off in the middle of the first `server.breaks` responses."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        if self.path != "/v1/runs/run1/history":
            self.send_response(404)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        broken = self.server.breaks > 0  # type: ignore[attr-defined]
        self.server.breaks -= broken  # type: ignore[attr-defined]
        for line in LINES[:20] if broken else LINES:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if not broken:
            self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.breaks = 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def client(server: ThreadingHTTPServer, patience: float = 10.0) -> Client:
    return Client(url=f"http://127.0.0.1:{server.server_address[1]}", token="t", patience=patience)


def test_a_broken_download_is_retried_from_the_beginning(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.breaks = 2  # type: ignore[attr-defined]
    assert client(server).runs.export("run1", tmp_path) == tmp_path / "run1.jsonl"
    assert (tmp_path / "run1.jsonl").read_bytes() == b"".join(LINES)
    assert client(server).runs.export("run1", tmp_path / "other.jsonl") == tmp_path / "other.jsonl"


def test_an_incomplete_download_leaves_no_file(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.breaks = 10_000  # type: ignore[attr-defined]
    (tmp_path / "kept.jsonl").write_text("before")
    with pytest.raises(UnreachableError):
        client(server, patience=0.2).runs.export("run1", tmp_path / "kept.jsonl")
    with pytest.raises(NotFoundError):
        client(server).runs.export("run2", tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"kept.jsonl": "before"}


def test_the_default_target_is_the_working_directory(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert client(server).runs.export("run1") == Path("run1.jsonl")
    assert (tmp_path / "run1.jsonl").is_file()
