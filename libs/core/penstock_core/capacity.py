"""What executors can run: announced by each, compared with what steps need."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from penstock_core.frozen import frozen
from penstock_core.pipeline.ir import Kind, Pipeline, StepSpec

ALL_POOLS = "*"
"""Pool of an executor that serves all pools."""

_SHOWN = 10


@frozen(kw_only=True)
class Capacity:
    """What a connected executor offers: `slots` attempts at once, `cpu` cores, `memory` bytes, `gpu` devices.

    None where that is not known: a cluster decides. `pods`: whether its attempts run in pods. `problems`: what is wrong
    where it runs them, one sentence each.
    """

    executor: str
    pool: str
    slots: int
    cpu: float | None = None
    memory: int | None = None
    gpu: int | None = None
    pods: bool = False
    problems: Sequence[str] = ()


@frozen(kw_only=True)
class DeclaredEnvironment:
    """Where an environment can be used: in pods if it has an `image`, in processes if it is `installable`."""

    image: bool
    installable: bool


@frozen(kw_only=True)
class Available:
    """The pools that there are, and the executors that are connected. A pool may have none at the moment.

    Those that are `restarting` were connected a short time ago.
    """

    pools: Collection[str]
    executors: Sequence[Capacity] = ()
    restarting: Sequence[Capacity] = ()

    def of(self, pool: str) -> list[Capacity]:
        """Return the connected executors that serve a pool."""
        return _serving(self.executors, pool)

    def expected(self, pool: str) -> list[Capacity]:
        """Return the executors that serve a pool, or will again."""
        return _serving([*self.executors, *self.restarting], pool)


Problem = tuple[str, str]


def problems(
    pipeline: Pipeline, available: Available, environments: Mapping[str, DeclaredEnvironment] | None = None
) -> list[Problem]:
    """Return the steps whose pool does not exist, or whose resources or environment no executor of it has.

    A step of a pool without connected executors is no problem: it waits for one. So does a step for which an executor
    that restarts is large enough.
    """
    found: list[Problem] = []
    for spec in _functions(pipeline):
        if spec.pool not in available.pools:
            message = f"no executor serves pool {spec.pool!r}{_place(spec)}; {_pools(available)}"
            found.append((f"steps.{spec.name}.pool", message))
            continue
        serving = available.of(spec.pool)
        missing = _missing(spec, available.expected(spec.pool)) if serving else ""
        if missing:
            have = "; ".join(_show(one) for one in serving[:_SHOWN])
            more = f"; and {len(serving) - _SHOWN} more" if len(serving) > _SHOWN else ""
            message = f"no executor of pool {spec.pool!r} has {missing}{_place(spec)}; it has {have}{more}"
            found.append((f"steps.{spec.name}.resources", message))
        declared = (environments or {}).get(spec.environment or "")
        if declared is not None and serving and (why := _unusable(declared, available.expected(spec.pool))):
            message = f"environment {spec.environment!r} cannot be used in pool {spec.pool!r}{_place(spec)}: {why}"
            found.append((f"steps.{spec.name}.environment", message))
    return found


def waiting(pipeline: Pipeline, available: Available) -> list[str]:
    """Return a sentence for each pool of a pipeline that has no connected executor."""
    steps: dict[str, list[str]] = {}
    for spec in _functions(pipeline):
        if not available.of(spec.pool):
            steps.setdefault(spec.pool, []).append(spec.name)
    return [
        f"no executor of pool {pool!r} is connected: {'steps' if len(names) > 1 else 'step'} "
        f"{', '.join(names[:_SHOWN])} will wait for one"
        for pool, names in steps.items()
    ]


def _serving(executors: Sequence[Capacity], pool: str) -> list[Capacity]:
    return [one for one in executors if one.pool in (pool, ALL_POOLS)]


def _functions(pipeline: Pipeline) -> list[StepSpec]:
    return [spec for spec in pipeline.steps.values() if spec.kind is Kind.FUNCTION]


def _missing(spec: StepSpec, serving: Sequence[Capacity]) -> str:
    """Return what a step needs, if no executor has it; empty if one has."""
    need = spec.resources
    if any(_fits(need.cpu, one.cpu) and _fits(need.memory, one.memory) and _fits(need.gpu, one.gpu) for one in serving):
        return ""
    wanted = [
        (need.cpu, f"{need.cpu:g} cores" if need.cpu is not None else ""),
        (need.memory, _memory(need.memory or 0)),
        (need.gpu, _gpus(need.gpu)),
    ]
    return ", ".join(text for amount, text in wanted if amount)


def _unusable(declared: DeclaredEnvironment, serving: Sequence[Capacity]) -> str:
    """Return why no executor can use an environment; empty if one can."""
    if any(declared.image if one.pods else declared.installable for one in serving):
        return ""
    if not declared.image:
        return (
            "its steps run in pods, and the environment has no image. Set PENSTOCK_IMAGES_REPOSITORY for the builder, "
            "then `penstock env update FILE`"
        )
    return "its steps run in processes, and the environment is an image. Declare requirements, or use a pool of pods"


def _fits(need: float | None, offer: float | None) -> bool:
    return offer is None or (need or 0) <= offer


def _pools(available: Available) -> str:
    if not available.pools:
        return "there are no executors"
    sizes = {pool: available.of(pool) for pool in sorted(available.pools)}
    shown = [
        f"{pool} ({len(found)} executor{'s' if len(found) > 1 else ''}, {sum(one.slots for one in found)} slots)"
        if found
        else pool
        for pool, found in sizes.items()
    ]
    return f"the pools are: {', '.join(shown)}"


def _show(one: Capacity) -> str:
    cpu, memory, gpu = one.cpu or 0, one.memory or 0, one.gpu or 0
    return f"{one.executor}: {cpu:g} cores, {_memory(memory)}, {_gpus(gpu)}"


def _memory(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"


def _gpus(count: int) -> str:
    return f"{count or 'no'} GPU{'' if count == 1 else 's'}"


def _place(spec: StepSpec) -> str:
    return f" ({spec.file}:{spec.line})" if spec.file and spec.line else ""
