"""Play the loop of `pipeline.py` with real data: patients call the endpoint, then the microscope is replaced.

The new microscope measures lengths a third larger, so the data drifts. Everything after that happens by events: this
program only sends patients, and answers for the laboratory when it is requested to confirm diagnoses.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd

from penstock import Client
from penstock.client.models import ModelVersion
from penstock.client.views import Run
from penstock.errors import NotFoundError

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import pipeline  # noqa: E402

T = TypeVar("T")

LARGER = 4 / 3
"""How much larger the new microscope measures lengths."""

_PENSTOCK = str(Path(sys.executable).with_name("penstock"))
_PATIENCE = 180.0
_STARTED = time.monotonic()


def say(text: str) -> None:
    """Print a line with the time since the start."""
    print(f"{time.monotonic() - _STARTED:5.1f} s  {text}", flush=True)  # noqa: T201


def new_microscope(rows: pd.DataFrame) -> pd.DataFrame:
    """Return patients as the new microscope measures them."""
    found = rows.copy()
    for name in pipeline.MEASUREMENTS:
        if "radius" in name or "perimeter" in name:
            found[name] *= LARGER
        elif "area" in name:
            found[name] *= LARGER**2
    return found


def wait(what: str, found: Callable[[], T | None]) -> T:
    """Return what a function finds, once it finds something."""
    deadline = time.monotonic() + _PATIENCE
    while (result := found()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {_PATIENCE:.0f} s")
        time.sleep(0.2)
    return result


class Clinic:
    """Patients, and the laboratory."""

    def __init__(self, client: Client, threads: int) -> None:
        self.client = client
        self.threads = threads
        self.patients = pipeline.patients()[pipeline.TRAINED_ON :].reset_index(drop=True)
        self.diagnoses: dict[str, str] = {}
        self.sent = 0

    def send(self, count: int, measure: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows) -> float:
        """Send patients to the endpoint; return the share of right predictions, which only the laboratory knows."""
        rows = self.patients.iloc[self.sent : self.sent + count]
        requests = [f"patient-{number}" for number in rows.index]
        self.sent += count
        self.diagnoses |= dict(zip(requests, rows["label"], strict=True))
        values = measure(rows)[pipeline.MEASUREMENTS].to_dict("records")

        def call(request: str, patient: dict[str, float]) -> bool:
            answer = self.client.endpoints.call("scorer", {"patient": patient}, idempotency_key=request)
            return answer["diagnosis"] == self.diagnoses[request]

        with ThreadPoolExecutor(self.threads) as pool:
            right = list(pool.map(call, requests, values))
        return sum(right) / len(right)

    def laboratory(self) -> None:
        """Answer each request for confirmed diagnoses, like a system of its own."""
        for event in self.client.events.follow("clinic.diagnoses.requested"):
            say(f"laboratory: {len(event.data['requests'])} diagnoses are requested, and confirmed")
            self.confirm(event.data["requests"], key=str(event.extensions["key"]), id=event.id)

    def confirm(self, requests: list[str], **event: str) -> None:
        """Send confirmed diagnoses."""
        labels = [{"request_id": request, "label": self.diagnoses[request]} for request in requests]
        self.client.events.send("clinic.diagnoses.ready", {"labels": labels}, source="laboratory", **event)


def finished_run(client: Client, deployment: str, after: float) -> Callable[[], Run | None]:
    """Return a function that finds the first run of a deployment after a time, once it has finished."""

    def find() -> Run | None:
        runs = client.runs.list(deployment=deployment, since=after, sort="created_at", limit=1)
        run = runs[0] if runs else None
        if run is not None and run.finished and not run.succeeded:
            raise RuntimeError(f"run {run.run_id} of {deployment} {run.state}: {run.error}")
        return run if run is not None and run.finished else None

    return find


def champion(client: Client) -> ModelVersion | None:
    """Return the version that the endpoint serves."""
    try:
        return client.models.get(pipeline.CHAMPION)
    except NotFoundError:
        return None


def play(client: Client, threads: int, after: int) -> None:
    """Play the loop on a platform whose deployments are those of `pipeline.py`."""
    clinic = Clinic(client, threads)
    threading.Thread(target=clinic.laboratory, daemon=True).start()
    first = wait("the first version", lambda: champion(client))
    say(f"{first.reference} is the champion, accuracy {first.metrics['accuracy']:.1%}; the endpoint serves it")

    began = time.time()
    accuracy = clinic.send(pipeline.CALLS)
    say(f"{pipeline.CALLS} patients were scored, {accuracy:.1%} of them right")
    watched = wait("the comparison of the calls", finished_run(client, "watch", began))
    say(_drift(client, watched))

    say("the microscope is replaced: it measures lengths a third larger. From here on, events do everything")
    began = time.time()
    before = clinic.send(pipeline.CALLS, new_microscope)
    say(f"{pipeline.CALLS} patients were scored, {before:.1%} of them right")
    watched = wait("the comparison of the calls", finished_run(client, "watch", began))
    say(_drift(client, watched))
    retrained = wait("the retraining", finished_run(client, "retrain", began))
    second = client.models.get(client.runs.get(retrained.run_id).models[0].reference)
    if "champion" not in second.aliases:
        raise SystemExit(f"{second.reference} did not pass the gate: penstock models history tumours")
    gate = f"accuracy {second.metrics['accuracy']:.1%} > {second.metrics['champion_accuracy']:.1%} of {first.reference}"
    say(f"{second.reference} passed the gate on the same patients ({gate}) and is the champion")
    checked = wait("the comparison after the promotion", finished_run(client, "watch", watched.created_at + 1e-3))
    say(_drift(client, checked))

    began = time.time()
    later = clinic.send(after, new_microscope)
    say(f"{after} patients were scored by {second.reference}, {later:.1%} of them right")
    clinic.confirm(list(clinic.diagnoses), id="all")
    measured = wait("the measurement", finished_run(client, "measure", began))
    report = client.artifacts.load(measured.run_id)
    for name, metrics in report.by_model.items():
        shown = f"accuracy {metrics['accuracy']:.1%} on {metrics['rows']:.0f} patients"
        say(f"confirmed by the laboratory: {name} has {shown}")

    say(f"the chain of events, as `penstock trace {retrained.run_id}` shows it:\n")
    _penstock(client, "trace", retrained.run_id)
    print(f"\nwith the new microscope: {first.reference} {before:.1%} right, {second.reference} {later:.1%} right")  # noqa: T201
    if later <= before:
        raise SystemExit("the new version is not better")


def _drift(client: Client, run: Run) -> str:
    report = client.artifacts.load(run.run_id, output="data")
    names = report.drifted_columns
    against = client.runs.get(run.run_id).steps["load_reference"].params["model"]
    if not report.drifted:
        return f"watch compared {report.current_rows} calls with the data of {against}: no drift"
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"watch compared {report.current_rows} calls with the data of {against}: DRIFT of {shown}"


def _penstock(client: Client, *arguments: str) -> None:
    subprocess.run([_PENSTOCK, *arguments], env=_environment(client.home), check=True, timeout=60)


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "PENSTOCK_HOME": str(home)}


@contextmanager
def platform(home: Path) -> Iterator[Client]:
    """Start a platform on a state folder, unless one is running there, and deploy the pipelines."""
    client = Client(home=home)
    started = None
    try:
        client.platform_info()
    except Exception:
        started = subprocess.Popen([_PENSTOCK, "up"], env=_environment(home), stdout=subprocess.DEVNULL)
    try:
        wait("the start of the platform", lambda: _running(client, started))
        _penstock(client, "run", f"{HERE / 'pipeline.py'}:training", "--quiet")
        _penstock(client, "deploy", str(HERE))
        yield client
    finally:
        if started is not None:
            started.terminate()
            started.wait(30)


def _running(client: Client, started: subprocess.Popen[bytes] | None) -> bool | None:
    if started is not None and started.poll() is not None:
        raise SystemExit("the platform did not start: penstock doctor")
    try:
        return bool(client.platform_info())
    except Exception:
        return None


def main() -> None:
    """Play the loop, on a platform of its own unless `--home` names a state folder."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--home", type=Path, help="state folder of the platform; default a temporary one")
    arguments.add_argument("--threads", type=int, default=4, help="requests to the endpoint at a time")
    arguments.add_argument("--after", type=int, default=40, help="patients after the promotion")
    given = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="penstock-loop-") as folder,
        platform((given.home or Path(folder)).resolve()) as client,
    ):
        play(client, given.threads, given.after)


if __name__ == "__main__":
    main()
