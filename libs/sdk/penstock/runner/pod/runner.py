"""The flow of an attempt in a pod: claim it, fetch what it needs, run it, store what it made, report its end.

Promises: user code runs only after this pod has claimed the attempt; the end is reported after everything that the step
wrote is stored; SIGTERM ends the step gracefully, and the end is reported all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.bundle import environment
from penstock.runner import error_info
from penstock.runner.pod.fork_servers import ForkServers
from penstock.runner.pod.growing_file import AppendedFile
from penstock.runner.pod.link import PATIENCE, AttemptLink, Link, RefusedError, note
from penstock.runner.pod.step_process import StepProcess
from penstock.runner.pod.transfers import TransferError, Transfers
from penstock.store import FolderStore
from penstock_core import pod_protocol, source_bundles
from penstock_core.artifacts import layout
from penstock_core.environments import installed
from penstock_core.environments.installed import Environment
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.run import retry
from penstock_core.secrets import given
from penstock_core.shipping.messages import AttemptKey, Entry, Message
from penstock_core.shipping.publisher import MessagePublisher
from penstock_core.shipping.tail import Tail
from penstock_core.source_bundles import BundleRefusedError

BEAT = 3.0
"""Seconds between two signs of life."""

COMMIT_INTERVAL = 0.5
"""Seconds between two announcements of stored artifacts; of those of one name in between, the last counts."""

_OUTPUT_WAIT = 60.0
_ENDED_CHECK = 10.0
"""Seconds after which a runner whose report is not answered looks whether its attempt has ended."""

Json = dict[str, Any]


class ImageLacksError(PenstockError):
    """The image of the pod lacks what the version needs."""


class PodError(PenstockError):
    """The pod was not set up for an attempt."""


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The attempt and the pod, from environment variables."""

    pool: str
    attempt: AttemptKey
    name: str
    uid: str
    node: str
    work: Path

    @property
    def runner(self) -> str:
        """The name of this runner in facts: no two pods have the same one."""
        return f"{self.name}.{self.uid}"


def identity(env: Mapping[str, str]) -> PodIdentity:
    """Read who this pod is.

    Raises:
        PodError: a variable is missing.
    """
    try:
        attempt = (env[pod_protocol.RUN], env[pod_protocol.KEY], int(env[pod_protocol.ATTEMPT]))
        pool, name, uid = env[pod_protocol.POOL], env[pod_protocol.POD_NAME], env[pod_protocol.POD_UID]
    except (KeyError, ValueError) as error:
        raise PodError(f"the variable {error} is missing or invalid: this program runs in pods of Penstock") from error
    work = Path(env.get(pod_protocol.WORK, "/tmp/penstock"))  # noqa: S108 - the only user of the container
    return PodIdentity(pool, attempt, name, uid, env.get(pod_protocol.NODE, ""), work)


class PodRunner:
    """Runs an attempt.

    Args:
        pod: who this pod is, and the attempt.
        link: the connection of the worker.
        link_of: makes a connection with the credential of the attempt.
        servers: the fork servers of this pod.
        claimed: called with the order once the attempt is claimed.
    """

    def __init__(
        self,
        pod: PodIdentity,
        link: Link,
        link_of: Callable[[str], Link],
        servers: ForkServers,
        claimed: Callable[[Json], None] = lambda order: None,
    ) -> None:
        self._pod = pod
        self._worker_link = link
        self._link_of = link_of
        self._servers = servers
        self._claimed = claimed
        self._publisher = MessagePublisher(self._store_message, lambda what, **about: note(f"{what}: {about}"))
        self._published: list[asyncio.Future[None]] = []
        self._commits: dict[str, Entry] = {}
        self._committed = asyncio.Event()
        self._step: StepProcess | None = None
        self._terminated = False
        self._grace = 5.0

    async def run(self) -> int:
        """Run the attempt; returns an exit status: 0 if it succeeded, 1 if not, 3 if another pod has it."""
        answer = await self._claim()
        if "refused" in answer:
            note(f"the attempt does not run here: {answer['refused']}")
            return 3
        self._claimed(answer)
        connection = self._link_of(answer.pop("credential"))
        connection.connect_soon()
        self._link = AttemptLink(connection, self._pod.pool, self._pod.attempt)
        self._transfers = Transfers(self._link, FolderStore(self._pod.work / "artifacts"))
        self._grace = float(answer["grace"])
        publishing = asyncio.create_task(self._publisher.run())
        beating = asyncio.create_task(self._beat(answer["lease"]))
        try:
            end = await self._attempt(answer)
            end = await self._store(end)
            end.pop("by_step", None)
            await self._finish(end)
        finally:
            for task in (publishing, beating):
                task.cancel()
            await self._link.close()
        return 0 if end["outcome"] == "succeeded" else 1

    async def _claim(self, headers: dict[str, str] | None = None, patience: float = PATIENCE) -> Json:
        subject = pod_protocol.claim(self._pod.pool, self._pod.name, *self._pod.attempt)
        about = {"runner": self._pod.runner, "host": self._pod.node or self._pod.name}
        return await self._worker_link.ask(subject, json.dumps(about).encode(), headers, patience)

    def terminate(self) -> None:
        """End the step, because Kubernetes ends the pod."""
        self._terminated = True
        if self._step is not None:
            why = "Kubernetes ended the pod of the attempt (SIGTERM)"
            self._step.stop("lost", "PodTerminated", why, self._grace)

    # --------------------------------------------------------------------------------------------------- the step

    async def _attempt(self, order: Json) -> Json:
        """Prepare and run the step; returns its end."""
        request = order["attempt"]
        try:
            _check_environment(order["environment"])
            source = self._pod.work / "source" / order["source"]
            await self._transfers.fetch([(order["source"], ""), *((one, kind) for one, kind in order["objects"])])
            store = FolderStore(self._pod.work / "artifacts", order["limit"])
            await asyncio.to_thread(_unpack, store.path(order["source"]), source)
        except UnavailableError as error:
            return _end(request, "lost", "StoreError", str(error))
        except ImageLacksError as error:
            return _end(request, "failed", retry.ENVIRONMENT_MISSING, str(error))
        except (PenstockError, OSError, tarfile.TarError) as error:
            return _end(request, "failed", type(error).__name__, str(error))
        secrets = await asyncio.to_thread(given.give, order.pop("secrets"))
        self._step = StepProcess(order, secrets, source, self._pod.work / "artifacts", self._servers, self, self._tail)
        if self._terminated:
            self.terminate()
        committing = asyncio.create_task(self._commit_loop())
        try:
            return await self._step.run()
        finally:
            committing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await committing

    def _tail(self, base: str, preface: str) -> Tail:
        return Tail(lambda suffix: AppendedFile(f"{base}.{suffix}"), time.time, preface)

    # -------------------------------------------------------------------------------------- the outbox of the step

    async def _store_message(self, message: Message) -> None:
        await self._link.publish(message)

    def publish(self, message: Message) -> None:
        """Publish a part of the output or of the metrics, or the progress."""
        if message.latest:
            self._publisher.replace(message)
        else:
            self._published = [one for one in self._published if not one.done()]
            self._published.append(self._publisher.submit(message))

    def commit(self, attempt: AttemptKey, body: Entry) -> None:
        """Announce an artifact or a checkpoint that the step stored."""
        self._commits[str(body["name"])] = body
        self._committed.set()

    async def _commit_loop(self) -> None:
        while True:
            await self._committed.wait()
            await self._commit_all()
            await asyncio.sleep(COMMIT_INTERVAL)

    async def _commit_all(self) -> None:
        self._committed.clear()
        pending, self._commits = self._commits, {}
        for name, body in pending.items():
            try:
                await self._transfers.store(body["value"])
                await self._link.ask(pod_protocol.COMMIT, body)
            except asyncio.CancelledError:
                self._commits.setdefault(name, body)
                raise
            except PenstockError as error:
                note(f"artifact {name!r} not announced: {error}")

    # ---------------------------------------------------------------------------------------------------- the end

    async def _store(self, end: Json) -> Json:
        """Store everything that the end refers to, and what the step wrote; returns the end to report."""
        began = time.monotonic()
        await self._commit_all()
        if self._published:
            await asyncio.wait(self._published, timeout=_OUTPUT_WAIT)
        try:
            await self._transfers.store(
                [
                    end.get("outputs"),
                    end.get("artifacts"),
                    [{"artifact": one["artifact"]} for one in end.get("models", [])],
                ]
            )
        except PenstockError as error:
            outcome = "lost" if isinstance(error, UnavailableError) else "failed"
            why = f"the artifacts of the attempt could not be stored: {error}"
            empty: Json = {"outputs": {}, "artifacts": {}, "models": []}
            return {**end, **empty, "outcome": outcome, "error": error_info.plain("StoreError", why)}
        end["save_seconds"] = end.get("save_seconds", 0.0) + time.monotonic() - began
        return end

    async def _finish(self, end: Json) -> None:
        """Report the end, until it is in the log.

        After that the credential of the attempt is refused, so a runner that lost its connection before it got the
        answer cannot ask again: it sees that its claim is refused.
        """
        reporting = asyncio.create_task(self._report(end))
        try:
            while not (await asyncio.wait([reporting], timeout=_ENDED_CHECK))[0]:
                with contextlib.suppress(PenstockError):
                    answer = await self._claim({pod_protocol.TRY: "2"}, patience=0.0)
                    if "refused" in answer:
                        note(f"the end is not reported again: {answer['refused']}")
                        return
            reporting.result()
        finally:
            reporting.cancel()

    async def _report(self, end: Json) -> None:
        try:
            await self._link.ask(pod_protocol.FINISH, end)
        except RefusedError as error:
            why = f"the end of the attempt could not be recorded: {error}"
            few = {name: end[name] for name in ("run_id", "key", "attempt", "started_at", "finished_at")}
            kind = error_info.plain("ResultTooLarge", why)
            await self._link.ask(pod_protocol.FINISH, {**few, "outcome": "failed", "error": kind})

    async def _beat(self, lease: float | None) -> None:
        """Tell the executor that this pod lives. An attempt with a lease is killed when nobody answers for long."""
        while True:
            sent = time.clock_gettime(time.CLOCK_BOOTTIME)
            with contextlib.suppress(PenstockError):
                await self._link.ask(pod_protocol.BEAT, {}, patience=0.0)
                if lease is not None and self._step is not None:
                    self._step.extend(sent + lease)
            await asyncio.sleep(BEAT)


def _check_environment(wanted: Json | None) -> None:
    """Compare this environment with that of the version; None: any will do."""
    if wanted is None:
        return
    found = environment.environment_info()
    names = ("implementation", "version", "packages")
    lacking = installed.differences(
        Environment(**{name: wanted[name] for name in names}), Environment(**{name: found[name] for name in names})
    )
    if lacking:
        raise ImageLacksError(
            f"the image of the pod lacks what this version needs: {installed.shorten(lacking)}. Install these in "
            "the image, or register the pipeline from an environment like that of the image"
        )


def _unpack(bundle: Path, target: Path) -> None:
    if target.is_dir():
        return
    part = target.with_suffix(".part")
    bounds = source_bundles.Bounds()
    try:
        source_bundles.check_size(bundle.stat().st_size)
        with tarfile.open(bundle, source_bundles.READ_MODE) as tar:
            for member in tar:
                bounds.admit(member.name, member.size)
            tar.extractall(part, filter="data")
        part.rename(target)
    except (tarfile.TarError, OSError, BundleRefusedError) as error:
        raise TransferError(f"the source bundle {bundle.name[:12]} cannot be unpacked: {error}") from error


def _end(request: Json, outcome: str, kind: str, why: str) -> Json:
    head = {name: request[name] for name in ("run_id", "key", "attempt")}
    return {**head, "outcome": outcome, "error": error_info.plain(kind, why), "finished_at": time.time()}


def work_folder(pod: PodIdentity) -> None:
    """Make the folders of the attempt."""
    for name in ("artifacts/" + layout.OBJECTS, "source", "step"):
        (pod.work / name).mkdir(parents=True, exist_ok=True)
    os.chdir(pod.work)
