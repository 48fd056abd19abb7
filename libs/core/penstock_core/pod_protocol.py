"""The messages between an executor and the runners in the pods of its attempts.

A pod gets the identity of its attempt in environment variables, and a credential of NATS for its worker from a secret
of its own; everything else comes in the answer to `claim`. That credential can only claim attempts that the executor
has assigned to the pod. The answer has a credential of the attempt, with which the runner makes another connection; it
allows the requests about this attempt and nothing else, and is refused after the attempt has ended.

Requests have JSON bodies. All executors of the pool receive them; the one that is responsible for the attempt answers.
Without an answer the runner asks again: after an executor died, another one becomes responsible.

On `pods.{pool}.claim.{worker}.{run_id}.{key}.{n}`, where `worker` is the name of the pod:

    claim    {"runner", "host"}          the runner identifies its pod. The answer is an order, or {"refused": why}: the
                                         attempt has ended, another pod has started it, or it was not assigned to this
                                         pod. An order is given to one pod only, so user code runs once

On `pods.{pool}.{run_id}.{key}.{n}.{verb}`:

    publish  see `shipping.messages`     output, metrics or progress, as a header says: {} after it is stored
    locate   `Locate`                    where to read an object of the attempt, or to write one: a `Location`
    complete `Complete`                  complete an object that was uploaded in parts: a `Location`
    commit   `ArtifactCommitted`         an object that the step stored while it runs, uploaded before: {}
    beat     {}                          the runner lives: {"lease": seconds}, how long the executor relies on that
    finish   `AttemptFinished`           the end of the attempt; the answer {} comes after it is in the log

An order is a JSON object:

    attempt      the `AttemptRequested`
    credential   a token of NATS for the attempt
    secrets      values by the text form of their use (`penstock_core.secrets.references`). They are in this answer
                 only, which no stream stores; the runner masks them in all that it reports
    source       digest of the source bundle
    environment  the environment of the version, see `penstock_core.environments`; null: not compared
    objects      digests of the objects that the inputs and the checkpoint refer to, with their media types
    checkpoint   the value that an earlier attempt stored last, or null
    limit        largest artifact in bytes, or null
    unsafe       whether formats may be used whose loading can run code
    grace        seconds between SIGTERM and SIGKILL of the step's process
    worker       class, idle and life of a worker, see below; null: the pod ends after the attempt
    lease        seconds without an answer to `beat` after which the runner kills the step; null: never

A pod whose order has a `worker` stays after its attempt. Every second it publishes {"uid", "class", "idle"} on
`pods.{pool}.worker.{worker}`. An executor offers it an attempt of its class by a request on `offers.{worker}.{uid}`
with {"run_id", "key", "attempt"}; the answer is {"taken": true} if it is idle, and it then claims the attempt. It ends
after `idle` seconds without an attempt, or `life` seconds after its start.

Every answer may be {"error": text, "unavailable": true} instead: the runner asks again.
"""

from __future__ import annotations

import hashlib

CLAIM, LOCATE, COMPLETE, COMMIT, BEAT, FINISH = "claim", "locate", "complete", "commit", "beat", "finish"
PUBLISH = "publish"

WORKER = "worker"
"""Word of the subjects on which workers announce themselves."""

KIND = "Penstock-Kind"
"""Header of `publish`: logs, metrics or progress."""

TOKEN_KEY = "token"  # noqa: S105 - the name of a key
"""Key of the secret of a worker with its credential; the secret is named like the Workflow."""

TRY = "Penstock-Try"
"""Header of a repeated request: its number, from 2. Any executor then answers about an attempt that has ended."""

NATS_URL = "PENSTOCK_NATS_URL"
"""Variable with the URLs of NATS servers, separated by commas."""

NATS_TOKEN = "PENSTOCK_NATS_TOKEN"  # noqa: S105 - the name of a variable
"""Variable with the credential of the worker."""

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


def announcement(pool: str, worker: str) -> str:
    """Return the subject on which a worker announces itself."""
    return f"pods.{pool}.{WORKER}.{worker}"


def offers(worker: str, uid: str) -> str:
    """Return the subject on which a worker is offered attempts, by the name and the uid of its pod."""
    return f"offers.{worker}.{uid}"


def claim(pool: str, worker: str, run_id: str, key: str, attempt: int) -> str:
    """Return the subject on which a worker claims an attempt."""
    return f"pods.{pool}.{CLAIM}.{worker}.{run_id}.{key}.{attempt}"


def claims(pool: str, worker: str) -> str:
    """Return the subjects of all claims of a worker."""
    return f"pods.{pool}.{CLAIM}.{worker}.>"


def subject(pool: str, run_id: str, key: str, attempt: int, verb: str) -> str:
    """Return the subject of a request of the runner of an attempt."""
    return f"pods.{pool}.{run_id}.{key}.{attempt}.{verb}"


def inbox(credential: str) -> str:
    """Return the prefix of the subjects on which the bearer of a credential gets answers: nobody else can guess it."""
    return f"_INBOX.{hashlib.sha256(credential.encode()).hexdigest()[:32]}"
