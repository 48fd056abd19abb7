"""The client against a real HTTP server that imitates the documented API, including broken connections."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock import Cron, pipeline
from penstock.client import platform
from penstock.client.client import Client
from penstock.client.embedded import EmbeddedPlatform
from penstock.client.pipelines import Version
from penstock.errors import (
    ClientError,
    NoPlatformError,
    NotFoundError,
    RefusedError,
    RunFailedError,
    UnauthorizedError,
    UnreachableError,
)
from penstock_core.errors import InputError

RUN = "01k" + "a" * 23
TOKEN = "secret"


def fact(seq: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"seq": seq, "kind": kind, "data": {"run_id": RUN, "seq": seq, "at": 1000.0 + seq, **fields}}


FACTS = [
    fact(3, "run.requested", project="default", pipeline="p", version=1),
    fact(5, "attempt.requested", key="a", attempt=1, pool="default"),
    fact(6, "attempt.started", key="a", attempt=1, executor="x", started_at=1006.0),
    fact(9, "attempt.finished", key="a", attempt=1, outcome="succeeded", started_at=1006.0, finished_at=1009.0),
    fact(10, "run.finished", outcome="succeeded"),
]


class FakePlatform(ThreadingHTTPServer):
    """A fake of the gateway's API. `script` defines the behaviour of each connection in turn."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.faults: list[str] = []
        self.facts = FACTS
        self.cuts: list[int] = []
        self.comments = 0
        self.runs_by_key: dict[str, str] = {}
        self.blobs: dict[str, bytes] = {}
        self.view: dict[str, Any] = {
            "run_id": RUN,
            "pipeline": "p",
            "version": 1,
            "state": "succeeded",
            "outputs": {"result": {"value": 42}},
            "steps": {"a": {"state": "succeeded", "attempts": 1, "depends_on": []}},
            "of_the_future": True,
        }
        self.logs: list[dict[str, Any]] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()

    def paths(self, method: str) -> list[str]:
        return [path for verb, path, _, _ in self.requests if verb == method]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakePlatform

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do(self) -> None:
        self.close_connection = True
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else b""
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.path, headers, body))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "drop":
            self.connection.shutdown(2)
            return
        if fault.isdigit():
            self.problem(int(fault), "Not now", "later")
            return
        if headers.get("authorization") != f"Bearer {TOKEN}":
            self.problem(401, "The token is missing or wrong", "look into the file")
            return
        path, _, query = self.path.partition("?")
        self.route(path, dict(urllib.parse.parse_qsl(query)), headers, body)
        if fault == "drop after":
            self.connection.shutdown(2)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do

    def route(self, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> None:
        server = self.server
        if match := re.fullmatch(r"/v1/artifacts/(\w+)", path):
            self.artifact(match[1], headers, body)
        elif path == "/v1/versions" and self.command == "POST":
            self.json(201, {"project": "default", "pipeline": "p", "version": 7, "created": True})
        elif path == "/v1/runs" and self.command == "POST":
            known = headers["idempotency-key"] in server.runs_by_key
            server.runs_by_key[headers["idempotency-key"]] = RUN
            answer = {"run_id": RUN, "pipeline": "p", "version": 1, "created": not known}
            self.json(200 if known else 202, answer)
        elif path == "/v1/runs":
            start = int(query.get("cursor", 0))
            rows = [{"run_id": f"{n}", "pipeline": "p", "version": 1, "state": "failed"} for n in range(5)]
            end = start + min(2, int(query["limit"]))
            self.json(200, {"runs": rows[start:end], "next": str(end) if end < 5 else None})
        elif path == f"/v1/runs/{RUN}":
            self.json(200, server.view)
        elif path == f"/v1/runs/{RUN}/cancel":
            self.json(202, {"run_id": RUN, "state": None})
        elif path == f"/v1/runs/{RUN}/rerun":
            known = headers["idempotency-key"] in server.runs_by_key
            server.runs_by_key[headers["idempotency-key"]] = RUN
            self.json(202, {"run_id": RUN, "pipeline": "p", "version": 1, "created": not known})
        elif path == f"/v1/runs/{RUN}/explain":
            step = {"key": "a", "state": "waiting", "sentence": "waits", "caused_by": ["b"], "mood": "new"}
            self.json(
                200, {"run_id": RUN, "pipeline": "p", "version": 1, "state": "running", "at": 5.0, "steps": [step]}
            )
        elif path == f"/v1/runs/{RUN}/events":
            self.events(int(headers.get("last-event-id", 0)))
        elif path == f"/v1/runs/{RUN}/logs":
            after = int(headers.get("last-event-id", 0))
            self.stream([(entry["seq"], "output", entry) for entry in server.logs if entry["seq"] > after], None)
        elif path.startswith("/v1/deployments/") and self.command == "PUT":
            self.json(200, {**json.loads(body), "name": path.rpartition("/")[2], "revision": 3, "changed": True})
        else:
            self.problem(404, "There is nothing at this address", "look elsewhere")

    def artifact(self, digest: str, headers: dict[str, str], body: bytes) -> None:
        blobs = self.server.blobs
        if self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == digest
            blobs[digest] = body
            self.json(201, {})
        elif digest not in blobs:
            self.problem(404, "No such artifact", "")
        else:
            start = int(headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            data = blobs[digest][start:]
            cut = self.server.cuts.pop(0) if self.server.cuts else None
            self.send_response(206 if start else 200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[:cut])
                if cut is not None:
                    self.connection.shutdown(2)

    def events(self, after: int) -> None:
        if after >= self.server.facts[-1]["seq"]:
            self.send_response(204)
            self.end_headers()
            return
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        items = [(f["seq"], f["kind"], f["data"]) for f in self.server.facts if f["seq"] > after]
        self.stream(items if cut is None else items[: abs(cut)], cut)

    def stream(self, items: list[tuple[int, str, Any]], cut: int | None) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.chunk(b": on\n\n")
        for seq, kind, data in items:
            text = b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), json.dumps(data).encode())
            # Split anywhere: frames need not come whole.
            self.chunk(text[:17])
            self.chunk(text[17:])
        for _ in range(self.server.comments):
            time.sleep(0.1)
            self.chunk(b": still here\n\n")
        if cut is not None and cut >= 0:
            # A connection that breaks in the middle of a frame.
            self.chunk(b"id: 999\nevent: run.fin")
            self.connection.shutdown(2)
        else:
            self.wfile.write(b"0\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def json(self, status: int, value: Any) -> None:
        self.answer(status, "application/json", json.dumps(value).encode())

    def problem(self, status: int, title: str, detail: str) -> None:
        body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        self.answer(status, "application/problem+json", json.dumps(body).encode())

    def answer(self, status: int, media_type: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def served() -> Iterator[FakePlatform]:
    server = FakePlatform()
    yield server
    server.stop()


@pytest.fixture
def client(served: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Client(served.url, TOKEN, home=tmp_path / "home", timeout=5, patience=5)


class Home:
    """A state folder whose platform is this test: it holds the lock and writes the address file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "token").write_text(TOKEN)
        self.lock = os.open(folder, os.O_RDONLY)

    def up(self, url: str, **more: Any) -> None:
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        (self.folder / "platform.json").write_text(json.dumps({"pid": os.getpid(), "url": url, **more}))

    def down(self) -> None:
        fcntl.flock(self.lock, fcntl.LOCK_UN)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.delenv("PENSTOCK_URL", raising=False)
    made = Home(tmp_path / ".penstock")
    yield made
    os.close(made.lock)


# --------------------------------------------------------------------------------------------------------- finding


def test_without_a_platform_the_error_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_URL", raising=False)
    with pytest.raises(NoPlatformError, match=r"start one with `penstock up`.*PENSTOCK_URL"):
        Client(home=tmp_path / "nothing").runs.list()


def test_the_platform_of_a_state_folder_is_found(served: FakePlatform, home: Home) -> None:
    home.up(served.url)
    assert Client(home=home.folder).runs.get(RUN).state == "succeeded"


def test_an_address_file_without_a_locked_process_is_stale(served: FakePlatform, home: Home) -> None:
    home.up(served.url)
    home.down()
    with pytest.raises(NoPlatformError):
        Client(home=home.folder).runs.get(RUN)


def test_the_environment_selects_a_platform(
    served: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_URL", served.url + "/")
    monkeypatch.setenv("PENSTOCK_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    assert Client().runs.get(RUN).run_id == RUN


def test_a_wrong_token_is_reported(served: FakePlatform) -> None:
    with pytest.raises(UnauthorizedError, match="look into the file"):
        Client(served.url, "wrong").runs.get(RUN)


def test_connection_refused_fails_within_a_bounded_time() -> None:
    began = time.monotonic()
    client = Client("http://127.0.0.1:1", TOKEN, patience=0.2)
    with pytest.raises(UnreachableError, match=r"connection refused.*penstock doctor"):
        client.runs.get(RUN)
    assert client.transport.present_patience == 0.2
    assert time.monotonic() - began < 3


def test_an_invalid_address_is_reported() -> None:
    with pytest.raises(ClientError, match=r"^'localhost:80' is not a URL of a platform: set PENSTOCK_URL"):
        Client("localhost:80", TOKEN).runs.get(RUN)


# -------------------------------------------------------------------------------------------------------- requests


def test_a_run_is_created_once_when_the_response_is_lost(served: FakePlatform, client: Client) -> None:
    served.faults = ["drop", "503", "drop after"]
    run = client.run("p", {"n": 3})
    keys = {headers["idempotency-key"] for verb, _, headers, _ in served.requests if verb == "POST"}
    assert len(served.paths("POST")) >= 3 and len(keys) == 1 and len(served.runs_by_key) == 1
    assert run.run_id == RUN and run.state == "queued"


def test_a_rerun_is_created_once_when_the_response_is_lost(served: FakePlatform, client: Client) -> None:
    served.faults = ["drop", "drop after"]
    assert client.runs.rerun(RUN, {"n": 4}, version="latest").run_id == RUN
    sent = [json.loads(body) for verb, _, _, body in served.requests if verb == "POST"]
    assert len(sent) >= 2 and all(body == {"version": "latest", "inputs": {"n": 4}} for body in sent)
    assert len(served.runs_by_key) == 1


def test_each_run_has_its_own_idempotency_key(served: FakePlatform, client: Client) -> None:
    client.run("p")
    client.run("p")
    client.run("p", idempotency_key="mine")
    assert len(served.runs_by_key) == 3 and "mine" in served.runs_by_key


def test_client_errors_are_not_retried(served: FakePlatform, client: Client) -> None:
    served.faults = ["422"]
    with pytest.raises(RefusedError, match="later") as caught:
        client.run("p")
    assert caught.value.status == 422 and len(served.requests) == 1


def test_a_limit_that_stays_exceeded_is_an_error_of_its_own(served: FakePlatform, client: Client) -> None:
    client.transport.patience = 0.2
    served.faults = ["429"] * 50
    with pytest.raises(RefusedError, match="later") as caught:
        client.run("p")
    assert caught.value.status == 429 and len(served.requests) > 1
    served.faults = ["429"]
    assert client.run("p").run_id == RUN


def test_not_found_is_raised_immediately(served: FakePlatform, client: Client) -> None:
    with pytest.raises(NotFoundError):
        client.runs.get("nosuchrun")
    with pytest.raises(NotFoundError):
        list(client.runs.events("nosuchrun"))
    assert len(served.requests) == 2


def test_pages_are_concatenated_up_to_the_limit(client: Client) -> None:
    assert [run.run_id for run in client.runs.list(limit=4)] == ["0", "1", "2", "3"]
    assert len(client.runs.list(limit=50)) == 5


def test_unknown_fields_of_a_newer_platform_are_ignored(client: Client) -> None:
    run = client.runs.get(RUN)
    assert run.steps["a"].state == "succeeded" and repr(run) == f"Run('{RUN}', p v1, succeeded)"


def test_deployments_are_applied_from_declarations_and_json(client: Client) -> None:
    @pipeline
    def training(n: int = 1) -> None: ...

    declared = training.deploy("nightly", triggers=[Cron("0 3 * * *", tz="Europe/Paris")], inputs={"n": 1})
    applied = client.deployments.apply(declared)
    assert (applied.name, applied.revision, applied.changed) == ("nightly", 3, True)
    assert applied.definition == declared.definition()
    assert client.deployments.apply("nightly", declared.definition()) == applied


def test_reasons_are_mapped_by_step(client: Client) -> None:
    reasons = client.runs.explain(RUN)
    assert (reasons.state, reasons.at, list(reasons.steps)) == ("running", 5.0, ["a"])
    assert (reasons.steps["a"].caused_by, reasons.steps["a"].since) == (("b",), None)
    assert str(reasons) == "a: waits"


def test_a_run_uses_the_given_version_number(served: FakePlatform, client: Client) -> None:
    client.run(Version("p", 7), labels={"a": "b"}, priority=2)
    body = json.loads(served.requests[-1][3])
    assert body == {"pipeline": "p", "version": 7, "inputs": {}, "labels": {"a": "b"}, "priority": 2}


# ------------------------------------------------------------------------------------------------- inputs and values


def test_a_file_is_uploaded_once_as_an_artifact(served: FakePlatform, client: Client, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n")
    for _ in range(2):
        client.run("p", {"source": table, "n": 2})
    inputs = json.loads(served.requests[-1][3])["inputs"]
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    assert inputs["n"] == 2
    assert inputs["source"]["artifact"]["sha256"] == digest and inputs["source"]["artifact"]["filename"] == "rows.csv"
    assert served.blobs == {digest: table.read_bytes()} and len(served.paths("PUT")) == 1


def test_a_file_inside_a_list_is_rejected_with_a_hint(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(InputError, match="pass each of them as a separate input"):
        client.run("p", {"sources": [tmp_path / "f"]})


def test_results_are_found_by_name(served: FakePlatform, client: Client) -> None:
    assert client.artifacts.load(RUN) == 42
    served.view["steps"]["a"]["outputs"] = {"only": {"value": [1, 2]}}
    assert client.artifacts.load(RUN, "a") == [1, 2]
    with pytest.raises(NotFoundError, match=r"has no output 'other'.*it has: only"):
        client.artifacts.load(RUN, "a", "other")
    with pytest.raises(NotFoundError, match=r"has no step 'b'.*its steps: a"):
        client.artifacts.load(RUN, "b")


def test_references_and_artifacts_are_resolved(served: FakePlatform, client: Client) -> None:
    text = "hello " * 10_000
    digest = hashlib.sha256(text.encode()).hexdigest()
    served.blobs[digest] = text.encode()
    reference = {"sha256": digest, "size": len(text), "media_type": "text/plain", "format": "text"}
    served.view["steps"]["a"]["outputs"] = {"result": {"artifact": reference}}
    earlier = {"result": {"key": "a", "attempt": 1, "output": "result"}}
    served.view["outputs"] = {"both": {"items": [earlier, {"value": 1}]}}
    served.cuts = [100, 20_000]
    assert client.artifacts.load(RUN) == [text, 1]
    ranges = [headers.get("range") for verb, path, headers, _ in served.requests if "artifacts" in path]
    assert ranges == [None, "bytes=100-", "bytes=20100-"], "a broken download goes on where it ended"
    client.artifacts.load(RUN)
    assert len([path for path in served.paths("GET") if "artifacts" in path]) == 3, "fetched once, then from the cache"


def test_damaged_bytes_are_rejected(served: FakePlatform, client: Client) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    served.blobs[digest] = b"wrong"
    reference = {"sha256": digest, "size": 5, "media_type": "text/plain", "format": "text"}
    served.view["outputs"] = {"result": {"artifact": reference}}
    with pytest.raises(Exception, match="damaged"):
        client.artifacts.load(RUN)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ({"format": "file", "filename": "report.html"}, "report.html"),
        ({"format": "file", "filename": "../../evil"}, "evil"),
        ({"format": "json"}, "model.json"),
        ({"format": "bytes", "media_type": "application/octet-stream"}, "model.bin"),
    ],
)
def test_downloads_get_a_safe_file_name(
    served: FakePlatform, client: Client, tmp_path: Path, reference: dict[str, Any], name: str
) -> None:
    digest = hashlib.sha256(b"data").hexdigest()
    served.blobs[digest] = b"data"
    served.view["outputs"] = {"model": {"artifact": {"sha256": digest, "size": 4, "media_type": "", **reference}}}
    target = tmp_path / "to"
    target.mkdir()
    assert client.artifacts.download(RUN, output="model", to=target) == target / name
    assert (target / name).read_bytes() == b"data" and [p.name for p in target.iterdir()] == [name]


# --------------------------------------------------------------------------------------------------------- streams


def seqs(client: Client, **options: Any) -> list[int]:
    return [event.seq for event in client.runs.events(RUN, **options)]


def test_events_arrive_once_in_order_despite_broken_connections(served: FakePlatform, client: Client) -> None:
    served.cuts = [2, 0, 1]
    assert seqs(client) == [3, 5, 6, 9, 10]
    resumed = [headers.get("last-event-id") for verb, path, headers, _ in served.requests]
    assert resumed == [None, "5", "5", "6"]


def test_a_stream_ended_by_a_stopping_platform_is_resumed(served: FakePlatform, client: Client) -> None:
    served.cuts = [-2]
    assert seqs(client) == [3, 5, 6, 9, 10]


def test_a_finished_stream_yields_nothing_more(served: FakePlatform, client: Client) -> None:
    assert seqs(client, after=10) == []
    assert seqs(client, after=6) == [9, 10]
    assert seqs(client, until=6) == [3, 5, 6]


def test_events_have_type_and_time(client: Client) -> None:
    event = list(client.runs.events(RUN))[3]
    assert (event.kind, event.key, event.at, event.data["outcome"]) == ("attempt.finished", "a", 1009.0, "succeeded")


def test_a_platform_restarted_on_another_port_is_found(home: Home) -> None:
    first = FakePlatform()
    first.cuts = [2]
    home.up(first.url)
    client = Client(home=home.folder, patience=20)
    events = client.runs.events(RUN)
    seen = [next(events).seq, next(events).seq]
    first.stop()
    second = FakePlatform()
    troubles: list[str] = []
    client.transport.on_retry = troubles.append

    def restart() -> None:
        home.down()
        time.sleep(0.2)
        home.up(second.url)

    thread = threading.Thread(target=restart)
    thread.start()
    seen += [event.seq for event in events]
    thread.join()
    second.stop()
    assert seen == [3, 5, 6, 9, 10] and troubles
    assert second.requests[0][2]["last-event-id"] == "5"


def test_the_client_waits_for_a_starting_platform(served: FakePlatform, tmp_path: Path) -> None:
    calls = 0

    def locate() -> platform.Address:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise NoPlatformError("not yet")
        return platform.Address(served.url, TOKEN)

    assert Client(home=tmp_path, locate=locate).runs.get(RUN).finished and calls == 4


def test_a_stream_that_was_quiet_for_longer_than_the_patience_is_opened_again(
    served: FakePlatform, tmp_path: Path
) -> None:
    served.cuts, served.comments = [2], 8
    events = Client(served.url, TOKEN, home=tmp_path, patience=0.5).runs.events(RUN)
    assert [event.seq for event in events] == [fact["seq"] for fact in FACTS]


def test_waiting_for_a_missing_platform_is_bounded(home: Home) -> None:
    server = FakePlatform()
    server.cuts = [2]
    home.up(server.url)
    events = Client(home=home.folder, patience=0.5).runs.events(RUN)
    next(events)
    next(events)
    server.stop()
    home.down()
    with pytest.raises(NoPlatformError, match="penstock up"):
        list(events)


def test_wait_returns_the_run_or_raises_its_failure(served: FakePlatform, client: Client) -> None:
    served.view["state"] = "running"

    def finish() -> None:
        time.sleep(0.1)
        served.view |= {"state": "failed", "error": "step 'a' failed"}

    thread = threading.Thread(target=finish)
    thread.start()
    assert client.runs.wait(RUN).state == "failed"
    thread.join()
    with pytest.raises(RunFailedError, match="step 'a' failed"):
        client.runs.wait(RUN, check=True)


def test_wait_respects_its_timeout(served: FakePlatform, client: Client) -> None:
    served.view["state"] = "running"
    served.facts = FACTS[:3]
    began = time.monotonic()
    with pytest.raises(ClientError, match=r"still running after 0\.3 s"):
        client.runs.wait(RUN, timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 10


def test_the_log_stream_ends_when_the_run_finished_and_all_logs_were_delivered(
    served: FakePlatform, client: Client
) -> None:
    lines = [{"at": 1.0, "stream": "stdout", "text": "one"}, {"at": 2.0, "metric": "loss", "value": 0.5, "step": 3}]
    served.logs = [
        {"seq": 4, "run_id": RUN, "key": "a", "attempt": 1, "entries": lines},
        {"seq": 8, "run_id": RUN, "key": "a", "attempt": 2, "entries": lines[:1]},
    ]
    found = list(client.runs.logs(RUN))
    assert [(line.step, line.attempt, line.seq, str(line)) for line in found] == [
        ("a", 1, 4, "one"),
        ("a", 1, 4, "loss = 0.5"),
        ("a", 2, 8, "one"),
    ]
    assert [str(line) for line in client.runs.logs(RUN, follow=False)] == ["one", "loss = 0.5", "one"]


def test_a_log_stream_is_resumed_after_a_platform_restart(served: FakePlatform, client: Client) -> None:
    served.view["state"] = "running"
    served.logs = [{"seq": 4, "key": "a", "attempt": 1, "entries": [{"at": 1.0, "stream": "stdout", "text": "one"}]}]
    more = {"seq": 5, "key": "a", "attempt": 1, "entries": [{"at": 1.0, "stream": "stdout", "text": "two"}]}

    def go_on() -> None:
        time.sleep(0.2)
        served.logs.append(more)
        served.view["state"] = "succeeded"

    thread = threading.Thread(target=go_on)
    thread.start()
    assert [line.text for line in client.runs.logs(RUN)] == ["one", "two"]
    thread.join()


# -------------------------------------------------------------------------------------------------------- embedded


def placeholder_fact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> Callable[[], EmbeddedPlatform]:
    """An `EmbeddedPlatform` that starts this program instead of the platform."""
    fake = tmp_path / "modules" / "penstock_standalone"
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    (fake / "__main__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    return lambda: EmbeddedPlatform(tmp_path / "home")


READY = """
import fcntl, json, os, sys, time
home = sys.argv[sys.argv.index("--home") + 1]
assert "--embedded" in sys.argv
lock = os.open(home, os.O_RDONLY)
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
open(home + "/token", "w").write("t")
open(home + "/started", "a").write("x")
launch = json.loads(os.environ["PENSTOCK_LAUNCH"])
with open(home + "/p", "w") as f: json.dump({"pid": os.getpid(), "url": "http://x", "idle": 0, "launch": launch}, f)
os.rename(home + "/p", home + "/platform.json")
clients = open(home + "/clients.lock", "a")
fcntl.flock(clients, fcntl.LOCK_EX)
"""


def test_an_embedded_platform_lives_as_long_as_its_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = placeholder_fact(monkeypatch, tmp_path, READY)
    with make() as first, make() as second:
        assert first.wait().pid == second.wait().pid
        first.close()
        time.sleep(0.1)
        assert platform.is_locked(second.home), "the second client holds it up"
        assert second.embedded
    deadline = time.monotonic() + 5
    while platform.is_locked(tmp_path / "home"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_embedded_platform_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = placeholder_fact(monkeypatch, tmp_path, READY)
    with make() as embedded:
        first = embedded.wait()
        assert first.pid is not None
        os.kill(first.pid, 9)
        deadline = time.monotonic() + 10
        while True:
            try:
                again = embedded.locate()
            except NoPlatformError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                if again.pid != first.pid:
                    break
        assert (tmp_path / "home" / "started").read_text() == "xx"


def test_a_platform_that_does_not_start_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = placeholder_fact(monkeypatch, tmp_path, "import sys; sys.exit('the disk is full')")
    with make() as embedded, pytest.raises(Exception, match=r"(?s)exited with exit code 1 .*\| the disk is full"):
        embedded.wait()


def test_an_uncreatable_state_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match=r"state folder .* cannot be written.*PENSTOCK_HOME"):
        EmbeddedPlatform(tmp_path / "file" / "home")
