"""Runs attempts as Workflows: submits them, watches them, and reports those whose runner did not report an end.

In: attempts. Out: ends by the cluster, to `AttemptEvents`; what pods wait for, to `on_waiting`. The runner in the pod
talks to the executor service itself, see `penstock_core.pod_protocol`.

Promises: the Workflow of an attempt has one name, so submitting it again, by any replica, changes nothing; a Workflow
whose attempt has ended is deleted; an attempt whose Workflow or pod is gone ends in bounded time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from penstock_adapters.argo import api as kubernetes
from penstock_adapters.argo import manifest, verdicts
from penstock_adapters.argo.api import ApiError, KubernetesApi
from penstock_adapters.argo.config import ArgoConfig
from penstock_adapters.argo.informer import Informer
from penstock_adapters.argo.verdicts import Verdict
from penstock_adapters.argo.views import PodView, WorkflowView, pod_view, workflow_view
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

_UNSEEN = 20.0
"""Seconds after which a Workflow that was created, and that no list shows, counts as deleted."""

_SILENT = 10.0
"""Seconds that the runner may take to report after its pod has ended."""


class SubmissionRefusedError(PenstockError):
    """Kubernetes refuses the Workflow of an attempt."""


@dataclass(slots=True)
class _Submitted:
    """An attempt of this replica.

    Attributes:
        since: when it was submitted, of `time.monotonic()`.
        lists: how many lists of Workflows there had been then.
        seen: whether its Workflow was seen.
        pod: its latest pod, in its last state.
        runner: the runner that has claimed the attempt: the name and the uid of its pod.
        heard: when that gave its last sign of life, of `time.monotonic()`.
        reason: why this executor ends it.
        shown: what it was last shown to wait for.
        ended_at: when its verdict was found, of `time.monotonic()`.
    """

    attempt: AttemptRequested
    since: float
    lists: int
    seen: bool = False
    pod: PodView | None = None
    runner: str = ""
    heard: float = 0.0
    reason: Verdict | None = None
    deleted: bool = False
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


class ArgoExecutor:
    """Implements `penstock_core.ports.Executor`. Create it on the event loop that it runs on.

    Args:
        executor_id: name of this executor in facts.
        pool: pool of the executor.
        events: gets ends.
        has: whether the service still has an attempt.
        runner: returns the runner that has claimed an attempt according to the log, or an empty text.
        ended: returns which of these attempts have ended, or are unknown to the log.
        on_waiting: gets what the pod of an attempt waits for; an empty text when it waits no more.
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
        self._api = api
        self._config = config
        self._warn = warn
        self._submitted: dict[str, _Submitted] = {}
        self._deleting: set[asyncio.Task[None]] = set()
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
        now = time.monotonic()
        submitted = _Submitted(attempt, now, self._workflows.lists, runner=self._runner(attempt), heard=now)
        self._submitted[name] = submitted
        if submitted.claimed:  # by a replica that has died: the Workflow is there, or the attempt is lost
            self._observe(name)
            return
        try:
            await self._api.create_workflow(manifest.build(attempt, self._pool, self._config))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                del self._submitted[name]
                raise _refused(error, self._config) from error
        except BaseException:
            del self._submitted[name]
            raise
        self._observe(name)

    async def cancel(self, run_id: str, key: str, attempt: int, reason: str) -> None:
        """See the port."""
        name = manifest.name((run_id, key, attempt))
        submitted = self._submitted.get(name)
        if submitted is not None:
            self._stop(name, submitted, Verdict(Outcome.CANCELLED, "Cancelled", reason or "cancelled"))

    async def close(self) -> None:
        """Release the connection. The Workflows go on: other replicas take the attempts."""
        if self._deleting:
            await asyncio.wait(self._deleting, timeout=5.0)
        await self._api.close()

    # --------------------------------------------------------------------------------------- what runners report

    def refusal(self, attempt: AttemptKey) -> str:
        """Return why no runner may claim an attempt; empty if one may."""
        submitted = self._submitted.get(manifest.name(attempt))
        return submitted.reason.message if submitted is not None and submitted.reason is not None else ""

    def claimed(self, attempt: AttemptKey, runner: str) -> None:
        """Note that a runner has claimed an attempt."""
        submitted = self._submitted.get(manifest.name(attempt))
        if submitted is not None:
            submitted.runner, submitted.heard = runner, time.monotonic()
            self._show(submitted, "")

    def heard(self, attempt: AttemptKey) -> None:
        """Note a sign of life of the runner of an attempt."""
        submitted = self._submitted.get(manifest.name(attempt))
        if submitted is not None:
            submitted.heard = time.monotonic()

    def refused(self, attempt: AttemptKey, why: str) -> None:
        """End an attempt whose second pod was refused: Argo makes a pod that was deleted again."""
        name = manifest.name(attempt)
        submitted = self._submitted.get(name)
        if submitted is not None:
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
        return sum(not submitted.claimed for submitted in self._submitted.values())

    # ------------------------------------------------------------------------------------------ what the cluster says

    def _pod_changed(self, name: str, pod: PodView | None) -> None:
        """Keep the last state of a pod: it tells why it is gone."""
        if pod is None:
            self._observe(name)  # Argo names the only pod of a Workflow like the Workflow
            return
        submitted = self._submitted.get(pod.workflow)
        if submitted is not None:
            submitted.pod = pod
            self._observe(pod.workflow)

    def _observe(self, name: str) -> None:
        """Look at the present state of an attempt, and end it if the cluster has."""
        submitted = self._submitted.get(name)
        if submitted is None:
            return
        workflow = self._workflows.objects.get(name)
        if workflow is not None:
            submitted.seen = True
        gone = workflow is None and (submitted.seen or self._is_missing(submitted))
        if not self._has(submitted.key):
            if gone or (workflow is not None and workflow.completed):
                del self._submitted[name]
            return
        if submitted.reason is not None and submitted.deleted:
            left = self._has_pod(name) and not self._is_silent(submitted)
            if gone and not left and not self._may_run(submitted):
                self._end(name, submitted, submitted.reason)
        elif workflow is not None or gone:
            self._judge(name, submitted, workflow, gone=gone)

    def _judge(self, name: str, submitted: _Submitted, workflow: WorkflowView | None, *, gone: bool) -> None:
        """End an attempt that the cluster has ended, unless its runner may still report that more precisely."""
        if submitted.pod is None:
            submitted.pod = next((pod for pod in self._pods.objects.values() if pod.workflow == name), None)
        found = verdicts.verdict(submitted.attempt, workflow, submitted.pod, claimed=submitted.claimed)
        if found is None:
            submitted.ended_at = 0.0
            self._show(submitted, "" if submitted.claimed else verdicts.waiting(workflow, submitted.pod))
        elif gone or not submitted.claimed or found.outcome is not Outcome.LOST or self._was_silent(submitted):
            if (gone and self._has_pod(name)) or self._may_run(submitted):
                return  # it is ending; its runner may still report
            if not gone:
                self._delete(name)
            self._end(name, submitted, found)

    def _is_missing(self, submitted: _Submitted) -> bool:
        """Whether a Workflow that was never seen should have been: deleted before it was listed."""
        listed = self._workflows.lists > submitted.lists
        return self._workflows.synced.is_set() and (listed or time.monotonic() - submitted.since > _UNSEEN)

    def _was_silent(self, submitted: _Submitted) -> bool:
        """Whether the runner had its time to report after its pod ended: its report is more precise."""
        submitted.ended_at = submitted.ended_at or time.monotonic()
        return time.monotonic() - submitted.ended_at > _SILENT

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

    def _end(self, name: str, submitted: _Submitted, found: Verdict) -> None:
        del self._submitted[name]
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
            self._delete(name, submitted)

    def _delete(self, name: str, submitted: _Submitted | None = None) -> None:
        task = asyncio.create_task(self._delete_workflow(name, submitted))
        self._deleting.add(task)
        task.add_done_callback(self._deleting.discard)

    async def _delete_workflow(self, name: str, submitted: _Submitted | None = None) -> None:
        try:
            there = await self._api.delete_workflow(self._config.namespace, name)
        except PenstockError as error:
            self._warn("Workflow not deleted, will be retried", workflow=name, error=str(error))
            return
        if submitted is not None:
            submitted.deleted = True
            submitted.seen = submitted.seen or not there
            self._observe(name)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            now = time.time()
            for name, submitted in list(self._submitted.items()):
                if submitted.reason is not None and not submitted.deleted:
                    self._delete(name, submitted)
                elif submitted.reason is None and not submitted.claimed and self._is_late(name, submitted, now):
                    why = submitted.shown or "its runner has not started"
                    self._stop(
                        name,
                        submitted,
                        Verdict(Outcome.TIMED_OUT, "QueueTimeout", f"the attempt did not start in time: {why}"),
                    )
                elif submitted.reason is None and self._is_silent(submitted):
                    why = f"the runner of the attempt has given no sign of life for {_LOST_AFTER * self._lease:g} s"
                    self._stop(name, submitted, Verdict(Outcome.LOST, "RunnerLost", why))
                self._observe(name)

    def _is_silent(self, submitted: _Submitted) -> bool:
        return submitted.claimed and time.monotonic() - submitted.heard > _LOST_AFTER * self._lease

    def _is_late(self, name: str, submitted: _Submitted, now: float) -> bool:
        workflow = self._workflows.objects.get(name)
        start_by = submitted.attempt.start_by
        if submitted.pod is not None and submitted.pod.phase != "Pending":
            return False
        late = workflow is not None and now - workflow.created > self._config.queue_timeout
        return late or (start_by is not None and now >= start_by)

    async def _delete_orphans(self) -> None:
        """Delete Workflows whose attempts have ended in the log, such as those of a replica that died."""
        await self._workflows.synced.wait()
        while True:
            running = {
                view.attempt: name
                for name, view in self._workflows.objects.items()
                if not view.completed and view.attempt is not None and name not in self._submitted
            }
            with suppress(UnavailableError):
                for attempt in await self._ended(list(running)) if running else ():
                    self._warn("Workflow of an ended attempt deleted", workflow=running[attempt])
                    await self._delete_workflow(running[attempt])
            await asyncio.sleep(ORPHAN_INTERVAL)


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
            f"the executor may not create Workflows {where}: {message}. Grant its service account `create` on "
            "workflows.argoproj.io"
        )
    return SubmissionRefusedError(f"Kubernetes refuses the Workflow of the step {where}: {message}")
