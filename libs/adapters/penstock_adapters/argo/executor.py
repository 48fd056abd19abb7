"""Runs attempts as Workflows: submits them, watches them, and reports those whose runner did not report an end.

In: attempts. Out: ends by the cluster, to `AttemptEvents`; what pods wait for, to `on_waiting`. The runner in the pod
talks to the executor service itself, see `penstock_core.pod_protocol`.

Promises: the Workflow of an attempt has one name, so submitting it again, by any replica, changes nothing; a Workflow
whose attempt has ended is deleted; an attempt whose Workflow or pod is gone ends in bounded time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from penstock_adapters.argo import api as kubernetes
from penstock_adapters.argo import manifest, verdicts
from penstock_adapters.argo.api import ApiError, KubernetesApi
from penstock_adapters.argo.config import ArgoConfig
from penstock_adapters.argo.informer import Informer
from penstock_adapters.argo.verdicts import Verdict
from penstock_adapters.argo.views import PodView, WorkflowView, pod_view, workflow_view
from penstock_core import pod_protocol
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Outcome
from penstock_core.ports import AttemptEvents
from penstock_core.shipping.messages import AttemptKey

CHECK_INTERVAL = 2.0
"""Seconds between two checks of all attempts: time-outs, deletions that failed, events that never came."""

ORPHAN_INTERVAL = 30.0
"""Seconds between two searches for Workflows of attempts that have ended."""

_MARGIN = 1.25
_LOST_AFTER = 4.0
"""Leases without a sign of life after which a runner counts as lost."""

_FRESH = 3.0
"""Seconds for which the announcement of a worker counts: it comes once a second."""

_FORGOTTEN = 30.0
"""Seconds without an announcement after which a worker's Workflow may be an orphan."""

_MOMENT = 0.25
"""Seconds to wait for a busy worker before a Workflow is created, whose pod takes seconds to start."""

_UNSEEN = 20.0
"""Seconds after which a Workflow that was created, and that no list shows, counts as deleted."""

_SILENT = 10.0
"""Seconds that the runner may take to report after its pod has ended."""


class SubmissionRefusedError(PenstockError):
    """Kubernetes refuses the Workflow of an attempt."""


@dataclass(slots=True)
class _Worker:
    """A worker, as it announced itself `at` a time of `time.monotonic()`."""

    uid: str
    work_class: str
    idle: bool
    at: float


@dataclass(slots=True)
class _Submitted:
    """An attempt of this replica.

    Attributes:
        workflow: name of the Workflow whose pod runs it, or is to run it: another attempt's, if that pod stayed.
        created: whether a Workflow was created for it.
        since: when it was submitted, of `time.monotonic()`.
        lists: how many lists of Workflows there had been then.
        seen: whether its Workflow was seen.
        pod: its latest pod, in its last state.
        runner: the runner that has claimed the attempt: the name and the uid of its pod.
        heard: when that gave its last sign of life, of `time.monotonic()`.
        reason: why this executor ends it.
        offered: whether it is being offered to workers.
        offered_to: the workers that it was offered to.
        work_class: what it has in common with attempts that can share a pod.
        image: the image of its environment, empty for that of the configuration; None: not known yet.
        shown: what it was last shown to wait for.
        ended_at: when its verdict was found, of `time.monotonic()`.
    """

    attempt: AttemptRequested
    workflow: str
    since: float
    lists: int
    created: bool = False
    seen: bool = False
    pod: PodView | None = None
    runner: str = ""
    heard: float = 0.0
    reason: Verdict | None = None
    deleted: bool = False
    offered: bool = False
    offered_to: set[str] = field(default_factory=set[str])
    work_class: str = ""
    image: str | None = None
    shown: str = ""
    ended_at: float = 0.0

    @property
    def key(self) -> AttemptKey:
        """Run, step and number."""
        return self.attempt.run_id, self.attempt.key, self.attempt.attempt

    @property
    def claimed(self) -> bool:
        """Whether a runner has claimed the attempt."""
        return self.runner != ""

    @property
    def waits(self) -> bool:
        """Whether it has neither a Workflow nor a worker."""
        return not self.created and not self.claimed and not self.assigned

    @property
    def assigned(self) -> bool:
        """Whether a worker has taken it, whose Workflow was another attempt's."""
        return self.workflow != manifest.name(self.key)


class ArgoExecutor:
    """Implements `penstock_core.ports.Executor`. Create it on the event loop that it runs on.

    Args:
        executor_id: name of this executor in facts.
        pool: pool of the executor.
        events: gets ends.
        has: whether the service still has an attempt.
        runner: returns the runner that has claimed an attempt according to the log, or an empty text.
        ended: returns which of these attempts have ended, or are unknown to the log.
        on_waiting: gets what the pod of an attempt waits for; an empty text when it no longer waits.
        image: returns the image of an attempt's environment; empty for that of the configuration.
        api: the connection to Kubernetes.
        config: how pods look.
        lease: seconds for which a sign of life of a runner counts.
        warn: writes to the log of the service.
    """

    durable = True

    def __init__(
        self,
        executor_id: str,
        pool: str,
        events: AttemptEvents,
        has: Callable[[AttemptKey], bool],
        runner: Callable[[AttemptRequested], str],
        ended: Callable[[list[AttemptKey]], Awaitable[Iterable[AttemptKey]]],
        on_waiting: Callable[[AttemptKey, str], None],
        image: Callable[[AttemptRequested], Awaitable[str]],
        api: KubernetesApi,
        config: ArgoConfig,
        lease: float,
        warn: Callable[..., None],
    ) -> None:
        self._id = executor_id
        self._lease = lease
        self._pool = pool
        self._events = events
        self._has = has
        self._runner = runner
        self._ended = ended
        self._on_waiting = on_waiting
        self._image = image
        self._api = api
        self._config = config
        self._warn = warn
        self._submitted: dict[str, _Submitted] = {}
        self._hosted: dict[str, str] = {}
        self._workers: dict[str, _Worker] = {}
        self._announced = asyncio.Event()
        self.offer: Callable[[str, str, AttemptKey], Awaitable[bool]] = _refuse
        """Offers an attempt to a worker, by the name and the uid of its pod; returns whether that takes it."""
        self.credential: Callable[[str, float], Awaitable[str]] = _no_credential
        """Returns the credential of the worker in the pod of a Workflow, for so many seconds."""
        self._background: set[asyncio.Task[object]] = set()
        selector = manifest.selector(pool)
        self._workflows: Informer[WorkflowView] = Informer(
            api,
            kubernetes.workflows(config.namespace),
            selector,
            workflow_view,
            lambda name, _: self._observe(name),
            warn,
        )
        self._pods: Informer[PodView] = Informer(
            api, kubernetes.pods(config.namespace), selector, pod_view, self._pod_changed, warn
        )

    async def run(self) -> None:
        """Watch the cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for loop in (self._workflows.run(), self._pods.run(), self._check(), self._delete_orphans()):
                tasks.create_task(loop)

    # ------------------------------------------------------------------------------------------------- the port

    async def submit(self, attempt: AttemptRequested) -> None:
        """See the port."""
        name = manifest.name((attempt.run_id, attempt.key, attempt.attempt))
        if name in self._submitted:
            return
        now, runner = time.monotonic(), self._runner(attempt)
        submitted = _Submitted(attempt, name, now, self._workflows.lists, runner=runner, heard=now)
        self._submitted[name] = submitted
        if not await self._find_image(name, submitted):
            return
        if submitted.claimed:  # by a replica that has died: the Workflow is there, or the attempt is lost
            self._host(name, submitted, runner.rpartition(".")[0])
            self._observe(submitted.workflow)
        elif not await self._assign(name, submitted) and submitted.reason is None and self._has_room:
            try:
                await self._create(name, submitted)
            except BaseException as error:
                known = self._submitted.pop(name, None)
                if known is None and isinstance(error, PenstockError):
                    return  # it was cancelled meanwhile, and its end is reported
                raise

    async def _find_image(self, name: str, submitted: _Submitted) -> bool:
        """Find the image of an attempt; False if the attempt was cancelled meanwhile.

        Raises:
            PenstockError: its environment has no image, or cannot be read.
        """
        submitted.offered = True  # so that it gets no worker and no Workflow meanwhile
        try:
            submitted.image = await self._image(submitted.attempt)
        except BaseException as error:
            if self._submitted.pop(name, None) is None and isinstance(error, PenstockError):
                return False
            raise
        finally:
            submitted.offered = False
        return name in self._submitted and submitted.reason is None

    async def _create(self, name: str, submitted: _Submitted) -> None:
        """Create the Workflow of an attempt. It may be cancelled meanwhile, and then end here.

        Raises:
            SubmissionRefusedError: Kubernetes refuses the Workflow.
            UnavailableError: the quota is used up, or the API server does not answer.
        """
        submitted.created, submitted.since = True, time.monotonic()
        credential = await self.credential(name, self.lifetime(submitted.attempt))
        namespace = self._config.namespace
        try:
            uid = await self._create_workflow(name, submitted)
            await self._api.create_secret(namespace, name, {pod_protocol.TOKEN_KEY: credential}, uid)
        except ApiError as error:
            raise _refused(error, self._config) from error
        self._observe(name)

    async def _create_workflow(self, name: str, submitted: _Submitted) -> str:
        """Create the Workflow of an attempt, if it does not exist; returns its uid."""
        try:
            created = await self._api.create_workflow(
                manifest.build(submitted.attempt, self._pool, self._config, submitted.image or "")
            )
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return await self._api.workflow_uid(self._config.namespace, name)
        return str(created["metadata"]["uid"])

    async def cancel(self, run_id: str, key: str, attempt: int, reason: str) -> None:
        """See the port."""
        name = manifest.name((run_id, key, attempt))
        submitted = self._submitted.get(name)
        if submitted is None:
            return
        found = Verdict(Outcome.CANCELLED, "Cancelled", reason or "cancelled")
        if submitted.waits and not submitted.offered:
            self._end(name, submitted, found)
        else:
            self._stop(name, submitted, found)

    async def close(self) -> None:
        """Release the connection. The Workflows go on: other replicas take the attempts."""
        if self._background:
            await asyncio.wait(self._background, timeout=5.0)
        await self._api.close()

    # --------------------------------------------------------------------------------------- what runners report

    def refusal(self, attempt: AttemptKey) -> str:
        """Return why no runner may claim an attempt; empty if one may."""
        submitted = self._submitted.get(manifest.name(attempt))
        return submitted.reason.message if submitted is not None and submitted.reason is not None else ""

    def is_assigned(self, attempt: AttemptKey, worker: str) -> bool:
        """Return whether the pod of a Workflow may claim an attempt: its own, or one that it was offered."""
        name = manifest.name(attempt)
        submitted = self._submitted.get(name)
        if submitted is None:
            return False
        known = {name, submitted.workflow, submitted.runner.rpartition(".")[0], *submitted.offered_to}
        return worker in known - {""}

    def lifetime(self, attempt: AttemptRequested) -> float:
        """Return the seconds for which credentials of the pod of an attempt are valid."""
        return manifest.lifetime(attempt, self._config)

    def claimed(self, attempt: AttemptKey, runner: str) -> None:
        """Note that a runner has claimed an attempt."""
        submitted = self._submitted.get(manifest.name(attempt))
        if submitted is not None:
            workflow = runner.rpartition(".")[0]
            if workflow != submitted.workflow:  # another one than it was submitted to, or offered to
                self._host(manifest.name(attempt), submitted, workflow)
            submitted.runner, submitted.heard = runner, time.monotonic()
            self._show(submitted, "")

    def heard(self, attempt: AttemptKey) -> None:
        """Note a sign of life of the runner of an attempt."""
        submitted = self._submitted.get(manifest.name(attempt))
        if submitted is not None:
            submitted.heard = time.monotonic()

    def refused(self, attempt: AttemptKey, why: str, owner: str) -> None:
        """Handle that a runner may not claim an attempt: another one has.

        If that one's pod runs, it has the attempt: two executors had found a pod for it. Otherwise the attempt is lost:
        Argo makes a pod that was deleted again.
        """
        if not self._found_owner(attempt, owner):
            self._spawn(self._refused_later(attempt, why, owner))

    def _found_owner(self, attempt: AttemptKey, owner: str) -> bool:
        """Note the pod that has claimed an attempt; False if no such pod is known to run."""
        name = manifest.name(attempt)
        submitted = self._submitted.get(name)
        if submitted is None or submitted.reason is not None:
            return True
        pod = next((pod for pod in self._pods.objects.values() if owner == f"{pod.name}.{pod.uid}"), None)
        if pod is None or pod.ended or pod.deleted:
            return False
        if submitted.workflow != pod.workflow:
            self._delete(submitted.workflow)
            self._host(name, submitted, pod.workflow)
        submitted.runner = owner
        return True

    async def _refused_later(self, attempt: AttemptKey, why: str, owner: str) -> None:
        """End an attempt whose owner has no pod, once the pods are known: this executor may have just started."""
        await self._pods.synced.wait()
        await asyncio.sleep(CHECK_INTERVAL)
        name = manifest.name(attempt)
        submitted = self._submitted.get(name)
        if submitted is None or self._found_owner(attempt, owner):
            return
        lost = f"the pod of the attempt was deleted or ended by the cluster, and {why}"
        self._stop(name, submitted, Verdict(Outcome.LOST, "PodReplaced", lost))

    def amended(self, fact: AttemptFinished) -> AttemptFinished:
        """Return the end that a runner reports, with the reason of this executor if it has ended the attempt."""
        submitted = self._submitted.get(manifest.name((fact.run_id, fact.key, fact.attempt)))
        if submitted is None or submitted.reason is None:
            return fact
        why = ErrorInfo(type=submitted.reason.kind, message=submitted.reason.message)
        return replace(fact, outcome=submitted.reason.outcome, error=why, outputs={}, models=())

    @property
    def pending(self) -> int:
        """Workflows of this replica whose runner has not started."""
        return sum(one.created and not one.claimed and not one.assigned for one in self._submitted.values())

    @property
    def _has_room(self) -> bool:
        """Whether another Workflow may wait for Argo's controller."""
        return self.pending < self._config.max_pending

    # ---------------------------------------------------------------------------------------------------- workers

    def worker(self, attempt: AttemptRequested) -> dict[str, object] | None:
        """Return the terms on which the pod of an attempt stays; None if it does not."""
        config = self._config
        submitted = self._submitted.get(manifest.name((attempt.run_id, attempt.key, attempt.attempt)))
        if not config.worker_idle or attempt.fresh_pod or submitted is None or submitted.image is None:
            return None
        return {"class": self._class_of(submitted), "idle": config.worker_idle, "life": config.worker_life}

    def announced(self, uid: str, pod: str, work_class: str, *, idle: bool) -> None:
        """Note the announcement of a worker; offer it an attempt that waits for a pod if it is idle.

        A step can announce anything in the name of its pod, such as the class of pods of another project. So a worker
        is offered nothing unless its Workflow, which executors create, has the class.
        """
        known = self._workflows.objects.get(pod)
        if known is None or known.work_class != work_class:
            work_class, idle = "", False
        self._workers[pod] = _Worker(uid, work_class, idle, time.monotonic())
        if idle:
            self._announced.set()
            self._announced.clear()
            oldest = min(
                (one for one in self._submitted.items() if self._may_be_assigned(one[1], work_class)),
                key=lambda one: one[1].since,
                default=None,
            )
            if oldest is not None:
                self._spawn(self._assign(*oldest))

    def _may_be_assigned(self, submitted: _Submitted, work_class: str) -> bool:
        waits = not submitted.claimed and not submitted.assigned and not submitted.offered and submitted.reason is None
        return waits and not submitted.attempt.fresh_pod and self._class_of(submitted) == work_class

    def _class_of(self, submitted: _Submitted) -> str:
        submitted.work_class = submitted.work_class or manifest.work_class(
            submitted.attempt, self._config, submitted.image or ""
        )
        return submitted.work_class

    async def _assign(self, name: str, submitted: _Submitted) -> bool:
        """Offer an attempt to idle workers of its class; returns whether one takes it.

        If workers of the class are busy, one may be about to become idle: this waits for a moment.
        """
        if submitted.attempt.fresh_pod:
            return False
        work_class = self._class_of(submitted)
        submitted.offered = True
        try:
            if not self._idle(work_class) and any(one.work_class == work_class for one in self._living()):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._announced.wait(), _MOMENT)
            while (found := self._idle(work_class)) is not None and not submitted.claimed:
                pod, worker = found
                worker.idle = False  # others that are submitted meanwhile choose another one
                submitted.offered_to.add(pod)
                if await self.offer(pod, worker.uid, submitted.key):
                    # Its own pod may have been quicker, or it is being cancelled: then the worker's claim is refused.
                    if not submitted.claimed and submitted.reason is None:
                        self._host(name, submitted, pod)
                        if submitted.created:
                            self._delete(name)
                    return True
        finally:
            submitted.offered = False
        return False

    def _host(self, name: str, submitted: _Submitted, workflow: str) -> None:
        """Note which Workflow's pod runs an attempt."""
        submitted.workflow, submitted.seen, submitted.pod = workflow, False, None
        submitted.heard = submitted.since = time.monotonic()
        submitted.lists = self._workflows.lists
        if workflow != name:
            self._hosted[workflow] = name

    def _idle(self, work_class: str) -> tuple[str, _Worker] | None:
        now = time.monotonic()
        idle = (
            (pod, one)
            for pod, one in self._workers.items()
            if one.idle and one.work_class == work_class and now - one.at < _FRESH
        )
        return next(idle, None)

    def _living(self) -> list[_Worker]:
        now = time.monotonic()
        return [one for one in self._workers.values() if now - one.at < _FRESH]

    # ------------------------------------------------------------------------------------------ what the cluster says

    def _pod_changed(self, name: str, pod: PodView | None) -> None:
        """Keep the last state of a pod: it tells why it is gone."""
        if pod is None:
            self._observe(name)  # Argo names the only pod of a Workflow like the Workflow
            return
        submitted = self._submitted.get(self._hosted.get(pod.workflow, pod.workflow))
        if submitted is not None and submitted.workflow == pod.workflow:
            submitted.pod = pod
            self._observe(pod.workflow)

    def _observe(self, name: str) -> None:
        """Look at the present state of the attempt of a Workflow, and end it if the cluster has."""
        workflow = self._workflows.objects.get(name)
        hosted = self._hosted.get(name, name)
        submitted = self._submitted.get(hosted)
        if submitted is None or submitted.workflow != name:
            return  # another Workflow's pod runs it
        name = hosted
        if workflow is not None:
            submitted.seen = True
        gone = workflow is None and (submitted.seen or self._is_missing(submitted))
        if not self._has(submitted.key):
            self._forget(name, submitted)
            return
        if submitted.waits and submitted.reason is None:
            return
        if submitted.reason is not None and submitted.deleted:
            left = self._has_pod(submitted.workflow) and not self._is_silent(submitted)
            if gone and not left and not self._may_run(submitted):
                self._end(name, submitted, submitted.reason)
        elif workflow is not None or gone:
            self._judge(name, submitted, workflow, gone=gone)

    def _judge(self, name: str, submitted: _Submitted, workflow: WorkflowView | None, *, gone: bool) -> None:
        """End an attempt that the cluster has ended, unless its runner may still report that more precisely."""
        if submitted.pod is None:
            pods = self._pods.objects.values()
            submitted.pod = next((pod for pod in pods if pod.workflow == submitted.workflow), None)
        begun = submitted.claimed or submitted.assigned
        found = verdicts.verdict(submitted.attempt, workflow, submitted.pod, claimed=begun)
        if found is None:
            submitted.ended_at = 0.0
            self._show(submitted, "" if begun else verdicts.waiting(workflow, submitted.pod))
        elif gone or not begun or found.outcome is not Outcome.LOST or self._was_silent(submitted):
            if (gone and self._has_pod(submitted.workflow)) or self._may_run(submitted):
                return  # it is ending; its runner may still report
            if not gone:
                self._delete(submitted.workflow)
            self._end(name, submitted, found)

    def _is_missing(self, submitted: _Submitted) -> bool:
        """Whether a Workflow that was never seen should have been: deleted before it was listed."""
        listed = self._workflows.lists > submitted.lists
        return self._workflows.synced.is_set() and (listed or time.monotonic() - submitted.since > _UNSEEN)

    def _was_silent(self, submitted: _Submitted) -> bool:
        """Whether the runner had its time to report: its report is more precise. Pods have a grace period."""
        submitted.ended_at = submitted.ended_at or time.monotonic()
        grace = self._config.grace if self._has_pod(submitted.workflow) else 0
        return time.monotonic() - submitted.ended_at > _SILENT + grace

    def _may_run(self, submitted: _Submitted) -> bool:
        """Whether a process of an attempt with slots of limits may be left on a node that the cluster cannot reach.

        Its runner kills it when no executor has answered for the duration of a lease.
        """
        if not submitted.attempt.limited or not submitted.claimed:
            return False
        pod = submitted.pod
        if pod is not None and pod.ended and submitted.runner == f"{pod.name}.{pod.uid}":
            return False
        return time.monotonic() - submitted.heard <= _MARGIN * self._lease

    def _has_pod(self, name: str) -> bool:
        return any(pod.workflow == name and not pod.ended for pod in self._pods.objects.values())

    def _show(self, submitted: _Submitted, text: str) -> None:
        if text != submitted.shown:
            submitted.shown = text
            self._on_waiting(submitted.key, text)

    def _forget(self, name: str, submitted: _Submitted) -> None:
        self._submitted.pop(name, None)
        if self._hosted.get(submitted.workflow) == name:
            del self._hosted[submitted.workflow]

    def _end(self, name: str, submitted: _Submitted, found: Verdict) -> None:
        self._forget(name, submitted)
        self._report(submitted, found)

    def _report(self, submitted: _Submitted, found: Verdict) -> None:
        run_id, key, number = submitted.key
        self._events.finished(
            AttemptFinished(
                run_id=run_id,
                key=key,
                attempt=number,
                outcome=found.outcome,
                error=ErrorInfo(type=found.kind, message=found.message),
                executor=self._id,
                finished_at=time.time(),
            )
        )

    # ------------------------------------------------------------------------------------------------- ending them

    def _stop(self, name: str, submitted: _Submitted, reason: Verdict) -> None:
        """End an attempt for a reason of this executor; it is reported when no pod is left."""
        if submitted.reason is None:
            submitted.reason = reason
            self._delete(submitted.workflow, submitted)

    def _delete(self, workflow: str, submitted: _Submitted | None = None) -> None:
        self._spawn(self._delete_workflow(workflow, submitted))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _delete_workflow(self, name: str, submitted: _Submitted | None = None) -> None:
        try:
            there = await self._api.delete_workflow(self._config.namespace, name)
        except PenstockError as error:
            self._warn("Workflow not deleted, will be retried", workflow=name, error=str(error))
            return
        if submitted is not None:
            submitted.deleted = True
            submitted.seen = submitted.seen or not there
            self._observe(submitted.workflow)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            now = time.time()
            for name, submitted in list(self._submitted.items()):
                if submitted.waits and submitted.reason is None and self._has(submitted.key):
                    await self._create_later(name, submitted, now)
                else:
                    self._check_one(name, submitted, now)

    async def _create_later(self, name: str, submitted: _Submitted, now: float) -> None:
        """Create the Workflow of an attempt that had to wait because many pods were waiting to start."""
        if submitted.offered:
            return
        if submitted.attempt.start_by is not None and now >= submitted.attempt.start_by:
            self._end(name, submitted, _late("too many pods are waiting to start"))
        elif self._has_room:
            try:
                await self._create(name, submitted)
            except UnavailableError:
                submitted.created = False  # tried again at the next check
            except PenstockError as error:
                if name in self._submitted:
                    refused = Verdict(Outcome.FAILED, type(error).__name__, str(error))
                    self._end(name, submitted, submitted.reason or refused)

    def _check_one(self, name: str, submitted: _Submitted, now: float) -> None:
        if submitted.reason is not None and not submitted.deleted:
            self._delete(submitted.workflow, submitted)
        elif submitted.reason is None and not submitted.claimed and self._is_late(submitted, now):
            self._stop(name, submitted, _late(submitted.shown or "its runner has not started"))
        elif submitted.reason is None and self._is_silent(submitted):
            why = f"the runner of the attempt has given no sign of life for {_LOST_AFTER * self._lease:g} s"
            self._stop(name, submitted, Verdict(Outcome.LOST, "RunnerLost", why))
        self._observe(submitted.workflow)

    def _is_silent(self, submitted: _Submitted) -> bool:
        begun = submitted.claimed or submitted.assigned
        return begun and time.monotonic() - submitted.heard > _LOST_AFTER * self._lease

    def _is_late(self, submitted: _Submitted, now: float) -> bool:
        if submitted.assigned:
            return False
        workflow = self._workflows.objects.get(submitted.workflow)
        start_by = submitted.attempt.start_by
        if submitted.pod is not None and submitted.pod.phase != "Pending":
            return False
        late = workflow is not None and now - workflow.created > self._config.queue_timeout
        return late or (start_by is not None and now >= start_by)

    def _is_in_use(self, workflow: str) -> bool:
        """Whether a Workflow has an attempt of this replica, or its pod is a worker."""
        worker = self._workers.get(workflow)
        recent = worker is not None and time.monotonic() - worker.at < _FORGOTTEN
        return recent or workflow in self._submitted or workflow in self._hosted

    async def _delete_orphans(self) -> None:
        """Delete Workflows whose attempts have ended in the log, such as those of a replica that died.

        The pod of such a Workflow may be a worker that runs another replica's attempt. It announces itself every
        second, but not while NATS is away or on an overloaded machine: only what was found twice in a row is deleted.
        """
        await self._workflows.synced.wait()
        found: set[str] = set()
        while True:
            unused = {
                view.attempt: name
                for name, view in self._workflows.objects.items()
                if not view.completed and view.attempt is not None and not self._is_in_use(name)
            }
            before, found = found, set()
            with suppress(UnavailableError):
                found = {unused[attempt] for attempt in (await self._ended(list(unused)) if unused else ())}
            for name in before & found:
                if not self._is_in_use(name):
                    self._warn("Workflow of an ended attempt deleted", workflow=name)
                    await self._delete_workflow(name)
            for pod in [pod for pod, one in self._workers.items() if time.monotonic() - one.at > _FORGOTTEN]:
                del self._workers[pod]
            await asyncio.sleep(ORPHAN_INTERVAL)


async def _refuse(worker: str, uid: str, attempt: AttemptKey) -> bool:
    """There is no worker."""
    return False


async def _no_credential(worker: str, lifetime: float) -> str:
    raise SubmissionRefusedError("there is nothing that issues credentials of NATS")


def _late(why: str) -> Verdict:
    return Verdict(Outcome.TIMED_OUT, "QueueTimeout", f"the attempt did not start in time: {why}")


def _refused(error: ApiError, config: ArgoConfig) -> PenstockError:
    """Return the error of a refused submission, with what to do about it."""
    message = str(error)
    if verdicts.QUOTA in message:
        return UnavailableError(f"the quota of the namespace is used up: {message}")
    where = f"in namespace {config.namespace!r}"
    if error.status == 404 and error.reason == "NotFound":
        return SubmissionRefusedError(
            f"Kubernetes does not know Workflows, or has no namespace {config.namespace!r}: {message}. Install Argo "
            "Workflows, or correct `namespace` in PENSTOCK_ARGO_CONFIG"
        )
    if error.status in (401, 403):
        return SubmissionRefusedError(
            f"the executor may not create Workflows or their secrets {where}: {message}. Grant its service account "
            "`create` on workflows.argoproj.io and on secrets"
        )
    return SubmissionRefusedError(f"Kubernetes refuses the Workflow of the step {where}: {message}")
