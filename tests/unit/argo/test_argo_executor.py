"""The Argo executor against an API that a test controls: what it creates, deletes and reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from penstock_adapters.argo import executor as module
from penstock_adapters.argo import informer, manifest
from penstock_adapters.argo.api import ApiError
from penstock_adapters.argo.config import ArgoConfig
from penstock_adapters.argo.executor import ArgoExecutor, SubmissionRefusedError
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import AttemptFinished, AttemptRequested, AttemptStarted, Outcome
from penstock_core.shipping.messages import AttemptKey

Json = dict[str, Any]

A, B = ("r", "a", 1), ("r", "b", 1)


def attempt(key: AttemptKey, **given: Any) -> AttemptRequested:
    fields: Json = {"pool": "p", "project": "d", "pipeline": "x", "version": 1, "entrypoint": "m:f"}
    return AttemptRequested(run_id=key[0], key=key[1], attempt=key[2], **fields | given)


class Api:
    """The objects of a cluster. `change` and `remove` send events to the watches."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {"workflows": {}, "pods": {}}
        self.queues: dict[str, asyncio.Queue[tuple[str, Json]]] = {kind: asyncio.Queue() for kind in self.objects}
        self.deleted: list[str] = []
        self.created: list[str] = []
        self.error: Exception | None = None
        self.secrets: dict[str, tuple[Json, str]] = {}

    async def list(self, path: str, selector: str) -> tuple[list[Json], str]:
        return list(self.objects[path.rpartition("/")[2]].values()), "1"

    async def watch(self, path: str, selector: str, version: str) -> AsyncGenerator[tuple[str, Json]]:
        while True:
            yield await self.queues[path.rpartition("/")[2]].get()

    def change(self, kind: str, name: str, status: Json, **metadata: Any) -> None:
        head = {"name": name, "uid": "u", "resourceVersion": "2", "creationTimestamp": "2026-11-30T12:00:00Z"}
        item = {"metadata": head | metadata, "status": status}
        self.objects[kind][name] = item
        self.queues[kind].put_nowait(("MODIFIED", item))

    def remove(self, kind: str, name: str) -> None:
        self.queues[kind].put_nowait(("DELETED", self.objects[kind].pop(name)))

    def pod(self, name: str, phase: str, **given: Any) -> None:
        self.change("pods", name, {"phase": phase}, labels={manifest.WORKFLOW: name}, **given)

    async def create_workflow(self, body: Json) -> Json:
        if self.error is not None:
            raise self.error
        name = body["metadata"]["name"]
        if name in self.objects["workflows"]:
            raise ApiError("exists", 409, "AlreadyExists")
        self.created.append(name)
        self.change("workflows", name, {"phase": "Running"}, annotations=body["metadata"]["annotations"])
        return {"metadata": {"uid": f"uid of {name}"}}

    async def workflow_uid(self, namespace: str, name: str) -> str:
        return f"uid of {name}"

    async def create_secret(self, namespace: str, name: str, data: Json, owner: str) -> None:
        self.secrets[name] = data, owner

    async def delete_workflow(self, namespace: str, name: str) -> bool:
        self.deleted.append(name)
        if name not in self.objects["workflows"]:
            return False
        self.remove("workflows", name)
        return True

    async def close(self) -> None:
        return


class Bench:
    """An executor with its API, and what it has reported."""

    def __init__(self, **settings: Any) -> None:
        self.api = Api()
        self.ends: list[AttemptFinished] = []
        self.owned: dict[AttemptKey, str] = {}
        self.in_log: list[AttemptKey] = []
        self.offers: list[tuple[str, AttemptKey]] = []
        self.takes = True
        self.asked = 0
        self.images: dict[str, str] = {}
        self.found = asyncio.Event()
        self.found.set()
        given: Json = {"image": "i", "nats_url": "nats://n:4222", "worker_idle": 0, "queue_timeout": 1e9}
        self.executor = ArgoExecutor(
            "e", "p", self, self._has, self._runner, self._ended, lambda *_: None, self._image, self.api,  # type: ignore[arg-type]
            ArgoConfig.model_validate(given | settings), 30.0, lambda *_, **__: None,
        )  # fmt: skip
        self.executor.offer = self._offer
        self.executor.credential = self._credential

    def started(self, fact: AttemptStarted) -> None:
        raise AssertionError("the service records starts itself")

    def finished(self, fact: AttemptFinished) -> None:
        self.ends.append(fact)

    def _has(self, attempt: AttemptKey) -> bool:
        return attempt not in self.in_log and all((e.run_id, e.key, e.attempt) != attempt for e in self.ends)

    def _runner(self, request: AttemptRequested) -> str:
        return self.owned.get((request.run_id, request.key, request.attempt), "")

    async def _image(self, request: AttemptRequested) -> str:
        await self.found.wait()
        if request.environment and request.environment not in self.images:
            raise PenstockError("it has no image")
        return self.images.get(request.environment, "")

    async def _ended(self, attempts: list[AttemptKey]) -> list[AttemptKey]:
        self.asked += 1
        return [one for one in attempts if one in self.in_log]

    async def _credential(self, worker: str, lifetime: float) -> str:
        return f"credential of {worker}"

    async def _offer(self, worker: str, uid: str, attempt: AttemptKey) -> bool:
        assert self.executor.is_assigned(attempt, worker)
        self.offers.append((uid, attempt))
        return self.takes

    async def has_worker(self, name: str, work_class: str) -> None:
        """Have a Workflow whose pod has a class."""
        self.api.change("workflows", name, {"phase": "Running"}, annotations={manifest.CLASS: work_class})
        async with asyncio.timeout(20):
            while name not in self.executor._workflows.objects:
                await asyncio.sleep(0.005)

    async def until_ended(self, count: int = 1) -> list[tuple[Outcome, str]]:
        async with asyncio.timeout(20):
            while len(self.ends) < count:
                await asyncio.sleep(0.01)
        return [(end.outcome, end.error.type if end.error else "") for end in self.ends]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with running(monkeypatch) as made:
        yield made


class running:
    """A bench whose executor watches the cluster, with short intervals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        for name, value in {"CHECK_INTERVAL": 0.02, "ORPHAN_INTERVAL": 0.05, "_FRESH": 0.3, "_SILENT": 0.05}.items():
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(informer, "FIRST_PAUSE", 0.01)
        self._settings = settings

    async def __aenter__(self) -> Bench:
        self._bench = Bench(**self._settings)
        self._task = asyncio.create_task(self._bench.executor.run())
        await asyncio.sleep(0.02)
        return self._bench

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await self._bench.executor.close()


async def test_submitting_twice_creates_one_workflow(bench: Bench) -> None:
    await bench.executor.submit(attempt(A))
    await bench.executor.submit(attempt(A))
    assert bench.api.created == [manifest.name(A)]


async def test_another_replica_takes_an_existing_workflow_over(bench: Bench) -> None:
    """Its creation is refused because it exists, and what happens to it is reported."""
    name = manifest.name(A)
    bench.api.change("workflows", name, {"phase": "Running"})
    await bench.executor.submit(attempt(A))
    assert bench.api.created == []
    bench.api.remove("workflows", name)
    assert await bench.until_ended() == [(Outcome.LOST, "WorkflowDeleted")]


async def test_an_attempt_that_a_runner_had_claimed_is_never_submitted_again(bench: Bench) -> None:
    bench.owned[A] = f"{manifest.name(A)}.uid"
    await bench.executor.submit(attempt(A))
    bench.executor._workflows.lists += 1  # as after a list that does not show it
    assert await bench.until_ended() == [(Outcome.LOST, "WorkflowDeleted")]
    assert bench.api.created == []


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (ApiError("forbidden: exceeded quota: small", 403, "Forbidden"), UnavailableError, "quota"),
        (ApiError("User x cannot create", 403, "Forbidden"), SubmissionRefusedError, "create"),
        (ApiError("not found", 404, "NotFound"), SubmissionRefusedError, "Install Argo"),
        (ApiError("spec.x is wrong", 422, "Invalid"), SubmissionRefusedError, "spec.x is wrong"),
        (UnavailableError("away"), UnavailableError, "away"),
    ],
)
async def test_a_refused_submission_says_what_to_do(
    bench: Bench, error: Exception, raised: type[Exception], text: str
) -> None:
    bench.api.error = error
    with pytest.raises(raised, match=text):
        await bench.executor.submit(attempt(A))
    bench.api.error = None
    await bench.executor.submit(attempt(A))  # nothing is left of the first try
    assert bench.api.created == [manifest.name(A)]


async def test_a_cancelled_attempt_ends_when_no_pod_is_left(bench: Bench) -> None:
    name = manifest.name(A)
    await bench.executor.submit(attempt(A))
    bench.api.pod(name, "Running")
    await asyncio.sleep(0.05)
    await bench.executor.cancel(*A, "enough")
    await asyncio.sleep(0.1)
    assert bench.api.deleted == [name] and bench.ends == []
    bench.api.remove("pods", name)
    assert await bench.until_ended() == [(Outcome.CANCELLED, "Cancelled")]


async def test_slots_of_limits_are_kept_while_an_unreachable_node_may_run_the_step(bench: Bench) -> None:
    name = manifest.name(A)
    await bench.executor.submit(attempt(A, limited=True))
    bench.executor.claimed(A, f"{name}.u")
    bench.api.remove("workflows", name)
    await asyncio.sleep(0.2)
    assert bench.ends == []
    bench.executor._submitted[name].heard -= 60  # longer than its lease
    assert await bench.until_ended() == [(Outcome.LOST, "WorkflowDeleted")]


async def test_orphans_are_deleted_and_the_workflows_of_others_are_not(bench: Bench) -> None:
    bench.in_log.append(A)
    for key in (A, B):
        names = {manifest.RUN: key[0], manifest.KEY: key[1], manifest.ATTEMPT: str(key[2])}
        bench.api.change("workflows", manifest.name(key), {"phase": "Running"}, annotations=names)
    async with asyncio.timeout(20):
        while manifest.name(A) not in bench.api.deleted:
            await asyncio.sleep(0.01)
    assert manifest.name(B) not in bench.api.deleted


async def test_an_idle_worker_of_the_class_is_preferred_to_a_new_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, worker_idle=60) as bench:
        work_class = manifest.work_class(attempt(A), bench.executor._config, "")
        await bench.has_worker("penstock-x", work_class)
        bench.executor.announced("u1", "penstock-x", work_class, idle=True)
        await bench.has_worker("penstock-y", "another class")
        bench.executor.announced("u2", "penstock-y", "another class", idle=True)
        await bench.executor.submit(attempt(A))
        assert (bench.offers, bench.api.created) == ([("u1", A)], [])
        bench.takes = False  # it has an attempt now
        bench.executor.announced("u1", "penstock-x", work_class, idle=True)
        await bench.executor.submit(attempt(B))
        assert bench.api.created == [manifest.name(B)]


async def test_a_worker_gets_no_attempt_of_a_class_that_its_workflow_does_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step can read the credential of its pod, and announce a class that it has computed."""
    async with running(monkeypatch, worker_idle=60) as bench:
        forged = manifest.work_class(attempt(A), bench.executor._config, "")
        own = manifest.work_class(attempt(B, project="other"), bench.executor._config, "")
        await bench.has_worker("penstock-x", own)
        bench.executor.announced("u1", "penstock-x", forged, idle=True)
        bench.executor.announced("u2", "penstock-unknown", forged, idle=True)
        await bench.executor.submit(attempt(A))
        bench.executor.announced("u1", "penstock-x", forged, idle=True)
        await asyncio.sleep(0.1)
        assert (bench.offers, bench.api.created) == ([], [manifest.name(A)])


async def test_a_worker_that_becomes_idle_takes_an_attempt_whose_pod_has_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, worker_idle=60) as bench:
        await bench.executor.submit(attempt(A))
        work_class = manifest.work_class(attempt(A), bench.executor._config, "")
        await bench.has_worker("penstock-x", work_class)
        bench.executor.announced("u1", "penstock-x", work_class, idle=True)
        async with asyncio.timeout(20):
            while not bench.api.deleted:
                await asyncio.sleep(0.01)
        assert (bench.offers, bench.api.deleted) == ([("u1", A)], [manifest.name(A)])
        bench.executor.claimed(A, "penstock-x.u1")
        bench.api.change("workflows", "penstock-x", {"phase": "Running"})
        await asyncio.sleep(0.1)
        assert bench.ends == []
        bench.api.remove("workflows", "penstock-x")  # the worker dies: its attempt is lost
        assert await bench.until_ended() == [(Outcome.LOST, "WorkflowDeleted")]


async def test_at_most_so_many_workflows_wait_for_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, max_pending=2) as bench:
        keys = [("r", f"s{n}", 1) for n in range(4)]
        for key in keys:
            await bench.executor.submit(attempt(key))
        await asyncio.sleep(0.1)
        assert bench.api.created == [manifest.name(key) for key in keys[:2]]
        bench.executor.claimed(keys[0], f"{manifest.name(keys[0])}.u")
        async with asyncio.timeout(20):
            while len(bench.api.created) < 3:
                await asyncio.sleep(0.01)
        await bench.executor.cancel(*keys[3], "enough")
        assert await bench.until_ended() == [(Outcome.CANCELLED, "Cancelled")]


async def test_an_attempt_that_is_cancelled_while_a_worker_is_asked_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, worker_idle=60) as bench:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def offer(worker: str, uid: str, attempt: AttemptKey) -> bool:
            asked.set()
            await answer.wait()
            return True

        bench.executor.offer = offer
        work_class = manifest.work_class(attempt(A), bench.executor._config, "")
        await bench.has_worker("penstock-x", work_class)
        bench.executor.announced("u1", "penstock-x", work_class, idle=True)
        submitting = asyncio.create_task(bench.executor.submit(attempt(A)))
        await asked.wait()
        await bench.executor.cancel(*A, "enough")
        answer.set()
        await submitting
        assert bench.executor.refusal(A) or bench.ends
        assert await bench.until_ended() == [(Outcome.CANCELLED, "Cancelled")]
        assert bench.api.created == [] and "penstock-x" not in bench.api.deleted


@pytest.mark.parametrize(
    "error", [ApiError("forbidden: exceeded quota", 403, "Forbidden"), ApiError("no", 422, "Invalid")]
)
@pytest.mark.parametrize("later", [False, True], ids=["at once", "after waiting for room"])
async def test_an_attempt_that_is_cancelled_while_kubernetes_refuses_its_workflow_ends_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception, later: bool
) -> None:
    async with running(monkeypatch, max_pending=1) as bench:
        creating, answer = asyncio.Event(), asyncio.Event()
        create = bench.api.create_workflow

        async def create_workflow(body: Json) -> Json:
            if body["metadata"]["name"] != manifest.name(A):
                return await create(body)
            creating.set()
            await answer.wait()
            raise error

        monkeypatch.setattr(bench.api, "create_workflow", create_workflow)
        if later:
            await bench.executor.submit(attempt(B))
        submitting = asyncio.create_task(bench.executor.submit(attempt(A)))
        if later:
            await submitting
            bench.executor.claimed(B, f"{manifest.name(B)}.u")  # now there is room
        await asyncio.wait_for(creating.wait(), 20)
        await bench.executor.cancel(*A, "enough")
        assert await bench.until_ended() == [(Outcome.CANCELLED, "Cancelled")]
        answer.set()
        await submitting
        await bench.executor.submit(attempt(("r", "c", 1)))
        async with asyncio.timeout(20):
            while manifest.name(("r", "c", 1)) not in bench.api.created:  # the executor still watches the cluster
                await asyncio.sleep(0.01)
        assert len(bench.ends) == 1


async def test_an_attempt_runs_in_the_image_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, worker_idle=60) as bench:
        bench.images["train"] = "r@sha256:1"
        with pytest.raises(PenstockError, match="it has no image"):
            await bench.executor.submit(attempt(A, environment="other"))
        assert not bench.api.created and not bench.ends
        other = manifest.work_class(attempt(A), bench.executor._config, "")
        await bench.has_worker("penstock-x", other)
        bench.executor.announced("u1", "penstock-x", other, idle=True)
        await bench.executor.submit(attempt(A, environment="train"))
        assert bench.api.created == [manifest.name(A)] and not bench.offers
        mine = bench.executor.worker(attempt(A, environment="train"))
        assert mine is not None and mine["class"] not in ("", other)
        assert bench.executor.worker(attempt(B)) is None


async def test_an_attempt_that_is_cancelled_while_its_image_is_looked_up_ends(bench: Bench) -> None:
    bench.found.clear()
    submitting = asyncio.create_task(bench.executor.submit(attempt(A)))
    await asyncio.sleep(0.05)
    await bench.executor.cancel(*A, "not needed")
    assert await bench.until_ended() == [(Outcome.CANCELLED, "Cancelled")]
    bench.found.set()
    await submitting
    assert not bench.api.created


async def test_an_attempt_with_a_fresh_pod_gets_no_worker_and_its_pod_does_not_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, worker_idle=60) as bench:
        alone = attempt(A, fresh_pod=True)
        work_class = manifest.work_class(alone, bench.executor._config, "")
        await bench.has_worker("penstock-x", work_class)
        bench.executor.announced("u1", "penstock-x", work_class, idle=True)
        await bench.executor.submit(alone)
        bench.executor.announced("u1", "penstock-x", work_class, idle=True)
        await asyncio.sleep(0.1)
        assert bench.api.created == [manifest.name(A)] and not bench.offers
        assert bench.executor.worker(alone) is None


async def test_a_worker_that_announces_itself_late_is_no_orphan(bench: Bench) -> None:
    """Its own attempt has ended, and it runs one of a replica that was killed; this replica has just started."""
    bench.in_log.append(A)
    worker, orphan = manifest.name(A), "penstock-orphan"
    names = {manifest.RUN: A[0], manifest.KEY: A[1], manifest.ATTEMPT: str(A[2])}
    bench.api.change("workflows", worker, {"phase": "Running"}, annotations=names)
    async with asyncio.timeout(20):
        while not bench.asked:  # the first search has found it
            await asyncio.sleep(0.005)
    bench.executor.announced("u1", worker, "c", idle=False)
    bench.in_log.append(B)
    names = {manifest.RUN: B[0], manifest.KEY: B[1], manifest.ATTEMPT: str(B[2])}
    bench.api.change("workflows", orphan, {"phase": "Running"}, annotations=names)
    async with asyncio.timeout(20):
        while orphan not in bench.api.deleted:
            bench.executor.announced("u1", worker, "c", idle=False)
            await asyncio.sleep(0.01)
    assert worker not in bench.api.deleted


async def test_a_claim_that_is_refused_before_the_pods_are_listed_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workers were offered the attempt, by executors that were killed; the pod of the first one runs."""
    async with running(monkeypatch, worker_idle=60) as bench:
        bench.executor._pods.synced.clear()
        await bench.executor.submit(attempt(A))
        bench.executor.refused(A, "another pod has started it", "penstock-w.u1")
        await asyncio.sleep(0.1)
        assert not bench.ends
        labels = {"workflows.argoproj.io/workflow": "penstock-w"}
        bench.api.change("workflows", "penstock-w", {"phase": "Running"})
        bench.api.change("pods", "penstock-w", {"phase": "Running"}, labels=labels, uid="u1")
        bench.executor._pods.synced.set()
        async with asyncio.timeout(20):
            while manifest.name(A) not in bench.api.deleted:  # its own Workflow is not needed
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not bench.ends


async def test_a_pod_that_is_deleted_has_its_grace_period_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, grace=30) as bench:
        name = manifest.name(A)
        await bench.executor.submit(attempt(A))
        bench.executor.claimed(A, f"{name}.u1")
        labels = {"workflows.argoproj.io/workflow": name}
        bench.api.change("pods", name, {"phase": "Running"}, labels=labels, uid="u1")
        bench.api.change("workflows", name, {"phase": "Failed", "message": "pod deleted"})
        await asyncio.sleep(0.3)  # much longer than a pod that has ended may take
        assert not bench.ends
        bench.api.change("pods", name, {"phase": "Failed"}, labels=labels, uid="u1")
        assert await bench.until_ended() == [(Outcome.LOST, "PodDeleted")]


async def test_a_workflow_owns_the_secret_with_the_credential_of_its_pod(bench: Bench) -> None:
    name = manifest.name(A)
    await bench.executor.submit(attempt(A))
    assert bench.api.secrets == {name: ({"token": f"credential of {name}"}, f"uid of {name}")}


async def test_a_secret_that_an_executor_did_not_create_before_it_died_is_created(bench: Bench) -> None:
    name = manifest.name(A)
    bench.api.change("workflows", name, {"phase": "Running"}, annotations={})
    await bench.executor.submit(attempt(A))
    assert bench.api.created == []
    assert bench.api.secrets == {name: ({"token": f"credential of {name}"}, f"uid of {name}")}


async def test_a_pod_waits_for_the_secret_of_its_workflow(bench: Bench) -> None:
    name = manifest.name(A)
    await bench.executor.submit(attempt(A))
    missing = {"reason": "CreateContainerConfigError", "message": f'secret "{name}" not found'}
    status = {"name": "main", "state": {"waiting": missing}}
    bench.api.change(
        "pods", name, {"phase": "Pending", "containerStatuses": [status]}, labels={manifest.WORKFLOW: name}
    )
    await asyncio.sleep(0.1)
    assert bench.ends == []
    status["state"] = {"waiting": missing | {"message": 'secret "of-the-user" not found'}}
    bench.api.change(
        "pods", name, {"phase": "Pending", "containerStatuses": [status]}, labels={manifest.WORKFLOW: name}
    )
    assert await bench.until_ended() == [(Outcome.FAILED, "ContainerFailed")]


async def test_a_pod_can_claim_only_what_was_assigned_to_it(bench: Bench) -> None:
    await bench.executor.submit(attempt(A))
    await bench.executor.submit(attempt(B))
    assert bench.executor.is_assigned(A, manifest.name(A))
    assert not bench.executor.is_assigned(A, manifest.name(B))
    assert not bench.executor.is_assigned(A, "")
    assert not bench.executor.is_assigned(("r", "c", 1), manifest.name(("r", "c", 1)))
