"""Pipelines whose runs are recorded as histories: fan-out, conditions, rules, waits, limits, caches, ends."""

from __future__ import annotations

import time

from penstock import (
    Resources,
    ask,
    context,
    on_exit,
    on_failure,
    one_of,
    otherwise,
    pipeline,
    run_pipeline,
    sleep,
    step,
    wait_for_event,
    when,
)


@step
def double(x: int) -> int:
    return 2 * x


@step
def add(a: int, b: int = 0) -> int:
    return a + b


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step
def total(values: list[int]) -> int:
    return sum(values)


@step
def halve(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x // 2


@step
def known(values: list[int | None]) -> int:
    return sum(value is not None for value in values)


@step(retries=2)
def shaky(x: int) -> int:
    if x % 2 and context().attempt < 2:
        raise ConnectionError(f"no answer to attempt {context().attempt}")
    return x


@step
def slow(x: int = 0, seconds: float = 60.0) -> int:
    time.sleep(seconds)
    return x


@step
def says(word: str | None) -> str:
    return str(word)


@step
def breaks(fails: bool) -> str:
    if fails:
        raise RuntimeError("no space left")
    return "built"


# ------------------------------------------------------------------------------------------------------------- fan-out


@pipeline
def mapped(values: list[int] = [3, 1, 2]):  # noqa: B006, never changed
    return {"total": total(double.map(values)), "sums": add.map(a=values, b=[10, 20, 30])}


@pipeline
def grid():
    return add.grid(a=[1, 2], b=[10, 20, 30])


@pipeline
def map_over_map(count: int = 3):
    return total(double.map(double.map(numbers(count))))


@pipeline
def tolerant(values: list[int] = [2, 3, 4]):  # noqa: B006, as above
    return known(halve.with_options(min_success=0.5, window=2).map(values))


@pipeline
def intolerant(values: list[int] = [2, 3, 4]):  # noqa: B006, as above
    return total(halve.with_options(window=1).map(values))


@pipeline
def mapped_retry():
    return total(shaky.map([1, 2, 3]))


@pipeline
def mapped_artifact(count: int = 1200):
    """The list is stored as lines; the second of its many items fails, so few are begun."""
    return total(halve.with_options(window=2).map(numbers(count)))


@pipeline
def mapped_slow():
    return total(slow.with_options(window=3).map(x=[1, 2, 3, 4, 5]))


@pipeline
def unequal(count: int = 3):
    return add.map(a=numbers(count), b=[1, 2])


# ---------------------------------------------------------------------------------------------- conditions and rules


@step
def measure(value: float) -> dict[str, float]:
    return {"auc": value}


@pipeline
def choosing(value: float = 0.9, least: float = 0.5):
    found = measure(value)
    with when(found["auc"] >= least):
        good = says("good")
        with when(found["auc"] > 0.8):
            best = says("best")
        with otherwise():
            fair = says("fair")
    with otherwise():
        bad = says("bad")
    return one_of(best, fair, good, bad)


@pipeline
def no_such_key():
    with when(measure(0.9)["accuracy"] > 0.5):
        good = says("good")
    return says(one_of(good, "none"))


@pipeline
def rules(fails: bool = True):
    built = breaks(fails)
    says.with_options(name="clean", trigger_rule="all_done")(built)
    says.with_options(name="alarm", trigger_rule="any_failed")("look").after(built)
    return says(built)


@pipeline
def handled(fails: bool = False, seconds: float = 0.0):
    built = breaks(fails)
    slow(1, seconds).after(built)
    with on_failure() as failure:
        says.with_options(name="failed")(failure.error)
    with on_exit() as ending:
        says.with_options(name="ended")(ending.outcome)
        with when(ending.outcome == "cancelled"):
            says.with_options(name="stopped")(ending.error)


# --------------------------------------------------------------------------------------------- time, and the outside


@pipeline
def never_queued():
    return double.with_options(pool="nobody", queue_timeout=0.5)(1)


@pipeline
def too_long():
    return double(slow(1))


@pipeline
def asking():
    answer = ask("Publish?", choices=["yes", "no"])
    with when(answer == "yes"):
        published = says("published")
    return one_of(published, "kept")


@pipeline
def asking_default():
    return says(ask("Publish?", choices=["yes", "no"], timeout=0.5, default="no"))


@pipeline
def asking_in_vain():
    return says(ask("Publish?", timeout=0.5))


@pipeline
def awaiting(key: str = "wine"):
    found = wait_for_event("com.acme.labels.ready", key=key, timeout=60)
    return says(found["url"])


@pipeline
def pausing():
    return double(1).after(sleep(0.5))


@pipeline
def child(fails: bool = False, x: int = 1):
    return double(x).after(breaks(fails))


@pipeline
def parent(fails: bool = False):
    return add(run_pipeline(child, fails=fails, x=20), 2)


@pipeline
def limited():
    return total(add.with_options(concurrency="licence:1").map(a=[1, 2, 3]))


@pipeline(max_active_runs=1, overlap="skip")
def one_at_a_time(seconds: float = 0.0):
    return slow(1, seconds)


@step(cache=True)
def cached(x: int) -> int:
    return 3 * x


@pipeline
def caching(x: int = 1):
    return double(cached(x))


@step
def saves(x: int) -> int:
    done = context().restore(0)
    if done:
        return done
    context().log_artifact("first guess", x)
    context().checkpoint(x + 1)
    time.sleep(60)
    return x


@pipeline
def checkpointed(x: int = 1):
    return double(saves(x))


@step(retries=2, resources=Resources(memory="64Mi", memory_growth=16))
def hungry(megabytes: int) -> int:
    return len(bytearray(megabytes * 1024**2))


@pipeline
def growing():
    return hungry(400)
