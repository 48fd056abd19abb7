"""The messages between an executor and the runners in the pods of its attempts.

A pod gets the identity of its attempt in environment variables, and how to reach NATS from a secret; everything else
comes in the answer to `claim`. A runner sends requests on `pods.{pool}.{run_id}.{key}.{n}.{verb}` with JSON bodies. All
executors of the pool receive them; the one that is responsible for the attempt answers. Without an answer the runner
asks again: after an executor died, another one becomes responsible.

    claim    {"runner", "host"}          the runner identifies its pod. The answer is an order, or {"refused": why}: the
                                         attempt has ended, or another pod has started it. An order is given to one pod
                                         only, so user code runs once
    locate   `Locate`                    where to read an object of the attempt, or to write one: a `Location`
    complete `Complete`                  complete an object that was uploaded in parts: a `Location`
    commit   `ArtifactCommitted`         an object that the step stored while it runs, uploaded before: {}
    beat     {}                          the runner lives: {"lease": seconds}, how long the executor relies on that
    finish   `AttemptFinished`           the end of the attempt; the answer {} comes after it is in the log

An order is a JSON object:

    attempt      the `AttemptRequested`
    source       digest of the source bundle
    environment  the environment of the version, see `penstock_core.environments`; null: not compared
    objects      digests of the objects that the inputs and the checkpoint refer to, with their media types
    checkpoint   the value that an earlier attempt stored last, or null
    limit        largest artifact in bytes, or null
    unsafe       whether formats may be used whose loading can run code
    grace        seconds between SIGTERM and SIGKILL of the step's process
    worker       class, idle and life of a worker, see below; null: the pod ends after the attempt
    lease        seconds without an answer to `beat` after which the runner kills the step; null: never

A pod whose order has a `worker` stays after its attempt. Every second it publishes {"uid", "pod", "class", "idle"} on
`pods.{pool}.worker`. An executor offers it an attempt of its class by a request on `workers.{uid}` with {"run_id",
"key", "attempt"}; the answer is {"taken": true} if it is idle, and it then claims the attempt. It ends after `idle`
seconds without an attempt, or `life` seconds after its start.

Every answer may be {"error": text, "unavailable": true} instead: the runner asks again.

Output, metrics and progress go to the streams LOGS and METRICS directly (`penstock_core.shipping`).
"""

from __future__ import annotations

CLAIM, LOCATE, COMPLETE, COMMIT, BEAT, FINISH = "claim", "locate", "complete", "commit", "beat", "finish"

WORKER = "worker"
"""Last token of the subject on which workers announce themselves."""

TRY = "Penstock-Try"
"""Header of a repeated request: its number, from 2. Any executor then answers about an attempt that has ended."""

NATS_URL = "PENSTOCK_NATS_URL"
"""Variable with the URLs of NATS servers, with credentials, separated by commas."""

NATS_TOKEN = "PENSTOCK_NATS_TOKEN"  # noqa: S105 - the name of a variable
"""Variable with a token, if the URLs contain no credentials."""

POOL, RUN, KEY, ATTEMPT = "PENSTOCK_POOL", "PENSTOCK_RUN", "PENSTOCK_STEP", "PENSTOCK_ATTEMPT"
"""Variables that identify the attempt."""

POD_NAME, POD_UID, NODE = "PENSTOCK_POD_NAME", "PENSTOCK_POD_UID", "PENSTOCK_NODE"
"""Variables that identify the pod."""

RUNNER = "/penstock-runner"
"""Volume with a copy of the runner, in pods whose image is that of an environment."""

RUNNER_MODULES, RUNNER_LIBRARIES = f"{RUNNER}/modules", f"{RUNNER}/libraries"
"""Its folders: what steps import, too, and what only the runner imports."""

COPY_RUNNER = "--copy-runner"
"""Argument of the runner: copy it to that volume, and exit."""

WORK = "PENSTOCK_WORK"
"""Variable with a folder that the runner may write to."""


def announcements(pool: str) -> str:
    """Return the subject on which the workers of a pool announce themselves."""
    return f"pods.{pool}.{WORKER}"


def offers(uid: str) -> str:
    """Return the subject on which a worker is offered attempts."""
    return f"workers.{uid}"


def subject(pool: str, run_id: str, key: str, attempt: int, verb: str) -> str:
    """Return the subject of a request of a runner."""
    return f"pods.{pool}.{run_id}.{key}.{attempt}.{verb}"
