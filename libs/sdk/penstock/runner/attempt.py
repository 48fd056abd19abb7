"""One attempt inside the user's environment: load the inputs, call the function, store the outputs, report the outcome.

In: an `AttemptRequested` as JSON and the artifact store. Out: an `AttemptFinished` as JSON. Nothing here knows how
either travels, and nothing the user's code raises leaves this module.
"""

from __future__ import annotations

import bdb
import functools
import inspect
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock import serialize
from penstock.bundle import project_paths, source
from penstock.runner import breakpoints, error_info, process_end, seeds
from penstock.runner.recorder import Recorder
from penstock.serialize import formats, saver, value_parts
from penstock.step_context import contexts
from penstock.store import FolderStore
from penstock_core import exhaustion
from penstock_core.pipeline.values import INLINE_LIMIT, REQUEST_LIMIT, ArtifactRef, json_weight

Json = dict[str, Any]

COMMIT_INLINE = 8 * 1024
"""Largest weight of a value that is announced as it stands while the attempt runs: there may be many of them."""

_THREAD = 8 * 2**20


def perform(
    request: Json,
    artifacts: str,
    base: str,
    checkpoint: Json | None = None,
    *,
    limit: int | None = None,
    unsafe: bool = True,
    own: set[int] | None = None,
    rank: int = 0,
    secrets: Mapping[str, str] | None = None,
) -> tuple[Json, Recorder]:
    """Run the attempt that `request` describes.

    Args:
        request: the `AttemptRequested`.
        artifacts: root folder of the artifact store.
        base: path of the files that get what the attempt measures and stores, without their endings.
        checkpoint: the value that an earlier attempt saved last.
        limit: largest artifact in bytes; None without one.
        unsafe: whether formats may be used whose loading can run code.
        own: in a process that ends after the attempt, the platform's file descriptors. What Python does at the end of
            a program belongs to the attempt then: threads are joined, exit handlers run, buffers are written.
        rank: which of the nodes of the step this process is; only rank 0 returns outputs and registers models.
        secrets: values by name, for `context().secret`.

    Returns:
        The `AttemptFinished`, and the recorder with the size of its files.
    """
    store = FolderStore(artifacts, limit)
    key = request["key"]
    owner = None if rank == 0 else os.getppid()
    context = open_context(request, store, base, checkpoint, unsafe=unsafe, owner=owner, secrets=secrets)
    recorder: Recorder = context.sink  # type: ignore[assignment]
    end: Json = {
        "run_id": request["run_id"],
        "key": key,
        "attempt": request["attempt"],
        "outcome": "succeeded",
        "started_at": 0.0,
        "finished_at": 0.0,
    }
    memory: int | None = request["resources"]["memory"]
    mine = os.getpid()
    try:
        limit_memory(memory)
        contexts.set_context(context)
        end["outputs"] = call(request, store, end, unsafe=unsafe, join=own is not None, keep=rank == 0)
    except BaseException as error:
        limit_memory(None)  # telling what happened needs some, too
        by_step = end.pop("by_step", False)
        _fail(end, error, request)
        if not by_step and exhaustion.is_exhaustion(error):
            # Its inputs could not be loaded, or its outputs not be stored: that is not the step's failure.
            end["error"]["type"] = exhaustion.OUT_OF_RESOURCES
    if os.getpid() != mine:
        # The user's function forked and its child came back here: only the parent reports.
        os._exit(0)
    limit_memory(None)
    if own is not None:
        try:
            process_end.finish(own | recorder.descriptors)
        except BaseException as error:  # a signal handler of the user's raised it
            _fail(end, error, request)
        recorder.include_workers()
    end["finished_at"] = end["finished_at"] or time.time()
    end["metrics"], end["params"], end["artifacts"] = recorder.metrics, recorder.params, recorder.artifacts
    end["tags"], end["non_finite"] = recorder.tags, recorder.non_finite
    if recorder.models and end["outcome"] == "succeeded":
        end["models"] = recorder.wanted()
    if recorder.events and end["outcome"] == "succeeded":
        end["events"] = recorder.events
    return end, recorder


def _fail(end: Json, error: BaseException, request: Json) -> None:
    end["outcome"] = "failed"
    end["error"] = describe(error, request["resources"]["memory"], request["entrypoint"])
    end.pop("outputs", None)


def resolve(entrypoint: str) -> Any:
    """The step or plain function named `module:function`.

    Raises:
        LookupError: the module has no such function.
    """
    module, _, path = entrypoint.partition(":")
    __import__(module)
    try:
        return functools.reduce(getattr, path.split("."), sys.modules[module])
    except AttributeError as error:
        raise LookupError(
            f"module {module!r} has no step {path!r}: was it renamed, or is it defined conditionally?"
        ) from error


def call(
    request: Json,
    store: FolderStore,
    end: Json,
    *,
    unsafe: bool,
    join: bool = False,
    keep: bool = True,
    before: Callable[[Json], None] | None = None,
) -> Json:
    """Load the inputs, call the step's function, and store its outputs.

    Args:
        request: the `AttemptRequested`.
        store: has the inputs, and gets the outputs.
        end: gets `started_at`, `finished_at`, `save_seconds`, and `by_step` if the function raised.
        unsafe: whether formats may be used whose loading can run code.
        join: wait for the threads that the function started.
        keep: whether the outputs are stored.
        before: called with the inputs, just before the function.

    Returns:
        The stored outputs by name.
    """
    key = request["key"]
    with seeds.watch_imports(request["entrypoint"].partition(":")[0]):
        step = resolve(request["entrypoint"])
    function = getattr(step, "function", step)
    hints: Mapping[str, Any] = getattr(step, "hints", {})
    inputs = {
        name: serialize.load(value, hints.get(name, Any), store, where=f"input {name!r} of step {key!r}", unsafe=unsafe)
        for name, value in request["inputs"].items()
    }
    paths = [name for name in inputs if "Path" in str(hints.get(name))]
    root = _source_root(request["entrypoint"]) if paths else None
    for name in paths:
        inputs[name] = project_paths.find_in_source(inputs[name], root)
    if request.get("seed") is not None:
        seeds.refresh(contexts.context().seed)
    if before is not None:
        before(inputs)
    end["started_at"] = time.time()
    try:
        result = step.call(function, inputs) if hasattr(step, "call") else function(**inputs)
        if inspect.iscoroutine(result):
            result = _await(result)
        if join:
            process_end.join_threads()
    except BaseException:
        end["by_step"] = True
        raise
    finally:
        end["finished_at"] = time.time()
    if not keep:
        return {}
    outputs = step.split(result) if hasattr(step, "split") else {"result": result}
    types: Mapping[str, Any] = getattr(step, "outputs", {})
    saved = {
        name: serialize.save(
            value, types.get(name, Any), store, where=f"output {name!r} of step {key!r}", unsafe=unsafe
        )
        for name, value in outputs.items()
    }
    end["save_seconds"] = max(0.0, time.time() - end["finished_at"])
    return saved if len(saved) * INLINE_LIMIT <= REQUEST_LIMIT else _fitting(saved, store)


def _source_root(entrypoint: str) -> Path | None:
    """The root of the project in this process."""
    module = entrypoint.partition(":")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else source.root_of(Path(file), module)


def _fitting(outputs: Json, store: FolderStore) -> Json:
    """Outputs whose inline values are small enough together for one message: the largest become artifacts."""
    sizes = {name: len(json.dumps(value)) for name, value in outputs.items()}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if total > REQUEST_LIMIT and "value" in outputs[name]:
            total -= sizes[name]
            outputs[name] = _stored(outputs[name]["value"], store)
    return outputs


def _stored(tree: Any, store: FolderStore) -> Json:
    form = formats.json_format(tree)
    with store.temporary() as temporary:
        project_types = form.save(tree, temporary) is True
        sha256, size = store.adopt(temporary)
    ref = ArtifactRef(
        sha256=sha256,
        size=size,
        media_type=form.media_type,
        format=form.name,
        items=value_parts.count(tree),
        project_types=project_types,
    )
    return saver.artifact_json(ref)


def _await(coroutine: Any) -> Any:
    import asyncio  # only steps that are `async def` pay for it

    return asyncio.run(coroutine)


def open_context(
    request: Json,
    store: FolderStore,
    base: str,
    checkpoint: Json | None,
    *,
    unsafe: bool,
    owner: int | None = None,
    recorder: type[Recorder] = Recorder,
    secrets: Mapping[str, str] | None = None,
) -> contexts.Context:
    """The context of an attempt, whose sink is a `Recorder`.

    Args:
        request: the `AttemptRequested`, of which the names are used.
        store: where objects are stored.
        base: path of the recorder's files, without their endings.
        checkpoint: the value that an earlier attempt saved last.
        unsafe: whether formats may be used whose loading can run code.
        owner: process id of the step; default: this process.
        recorder: class of the sink.
        secrets: values by name.
    """
    key = request["key"]

    def save(name: str, value: object) -> Json:
        return serialize.save(value, Any, store, where=f"artifact {name!r} of step {key!r}", unsafe=unsafe)

    def slim(saved: Json) -> Json:
        large = "value" in saved and json_weight(saved["value"]) > COMMIT_INLINE
        return _stored(saved["value"], store) if large else saved

    def load(saved: Json) -> Any:
        return serialize.load(saved, Any, store, where=f"the checkpoint of step {key!r}", unsafe=unsafe)

    def whole(saved: Json) -> Json:
        return _stored(saved["value"], store) if "value" in saved else saved

    return contexts.Context(
        run_id=request["run_id"],
        step=key,
        attempt=request["attempt"],
        pipeline=request["pipeline"],
        project=request["project"],
        sink=recorder(base, save, slim, load, whole, owner),
        seed=request.get("seed"),
        secrets=secrets or {},
        earlier=None if checkpoint is None else lambda: load(checkpoint),
    )


def describe(error: BaseException, memory: int | None, entrypoint: str) -> Json:
    """Describe what ended a step, as the fields of an `ErrorInfo`, with advice where a cause is known."""
    described = error_info.describe(error)
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        root = _source_root(entrypoint)
        if root is not None and not os.path.isabs(error.filename) and (root / error.filename).exists():  # noqa: PTH117
            described["message"] += (
                ". Steps run in a folder of their own; this file lies beside the pipeline: "
                f"open Path(__file__).parent / {error.filename!r}, or make it a parameter of type Path"
            )
    if isinstance(error, bdb.BdbQuit):
        why = f"the debugger found no input: {breakpoints.advice()}"
        return error_info.plain("BdbQuit", why, ("Exception", "BaseException"), described["traceback"])
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        why = f"the step's process called exit with code {code} before the step returned"
        return error_info.plain("Exit", why, ("SystemExit", "BaseException"), traceback=described["traceback"])
    if isinstance(error, MemoryError) and memory is not None:
        why = f"the step needed more than its memory limit of {memory / 2**20:.0f} MiB ({described['message']})"
        bases = (described["type"], *described["bases"])
        return error_info.plain("OutOfMemory", why, bases, described["traceback"])
    return described


def limit_memory(limit: int | None) -> None:
    """Bound the memory that this process can use; None lifts the bound.

    The kernel can bound what is reserved for writing (`RLIMIT_DATA`), not what is used of it, and libraries reserve
    much that they never use: pyarrow a gigabyte when imported, each thread eight megabytes. So what is reserved and
    unused now is added, and a thread for each processor.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = hard
    if limit is not None:
        _, resident, shared, _, _, data, _ = map(int, Path("/proc/self/statm").read_text().split())
        unused = max(0, data - (resident - shared)) * resource.getpagesize()
        wanted = limit + unused + _THREAD * (os.cpu_count() or 1)
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if wanted != soft:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
