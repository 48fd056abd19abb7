"""The pipelines whose runs are recorded as histories (see `record.py`). Each shows one behaviour."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from penstock import Resources, context, pipeline, step


class Parts(NamedTuple):
    train: list[int]
    test: list[int]


@step
def one(x: int) -> int:
    return x + 1


@step
def total(values: list[int]) -> int:
    return sum(values)


@step
def broken(x: int) -> int:
    raise ValueError(f"cannot use {x}")


@pipeline
def chain(x: int = 1):
    return one(one(one(x)))


@pipeline
def fan_in(x: int = 1):
    return total([one(x), one(2), one(3), 4])


@pipeline
def wide():
    return total([one(n) for n in range(24)])


@step
def split(values: list[int], at: int = 2) -> Parts:
    return Parts(values[:at], values[at:])


@pipeline
def named_outputs(values: list[int] = [1, 2, 3, 4, 5]):  # noqa: B006, never changed
    parts = split(values)
    return {"train": total(parts.train), "test": total(parts.test), "both": [parts.train, parts.test]}


@step
def table(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"x": range(rows)})


@step
def array(data: pd.DataFrame) -> np.ndarray:
    return data["x"].to_numpy()


@step
def report(data: np.ndarray, title: str) -> Path:
    path = Path("report.md")
    path.write_text(f"{title}: {data.sum()}\n")
    context().log_artifact("rows", data.tolist())
    return path


@pipeline
def artifacts(rows: int = 10):
    return report(array(table(rows)), "sum")


@step
def read(source: Path) -> str:
    return source.read_text()[:40]


@pipeline
def file_input(source: Path):
    return read(source)


@step
def measured(x: int) -> int:
    for n in range(3):
        context().log_metric("loss", 1 / (n + x), step=n)
    context().log_param("depth", x)
    context().log_param("layers", [8, x])
    return x


@pipeline
def metrics(x: int = 2):
    return measured(x)


@pipeline
def failure(x: int = 1):
    bad = broken(one(x))
    return total([bad, one(bad)])


@pipeline
def independent_branch(x: int = 1):
    bad = total([broken(x), one(x)])
    good = one(one(one(x)))
    return total([bad, good])


@step(retries=3, retry_delay=0.1, backoff=2)
def shaky(x: int) -> int:
    if context().attempt < 3:
        raise ConnectionError(f"no answer to attempt {context().attempt}")
    return x


@pipeline
def retries(x: int = 1):
    return one(shaky(x))


@step(retries=2)
def hopeless(x: int) -> int:
    raise ConnectionError("no answer")


@pipeline
def retries_exhausted(x: int = 1):
    return one(hopeless(x))


@step(retries=3, retry_on=[ConnectionError])
def picky(x: int) -> int:
    raise KeyError("not a matter of the connection")


@pipeline
def retry_on_others(x: int = 1):
    return picky(x)


@step(timeout=0.3)
def endless(x: int) -> int:
    time.sleep(60)
    return x


@pipeline
def timeout(x: int = 1):
    return one(endless(x))


@step(timeout=0.5, retries=1)
def slow_at_first(x: int) -> int:
    if context().attempt == 1:
        time.sleep(60)
    return x


@pipeline
def timeout_then_success(x: int = 1):
    return slow_at_first(x)


@step
def exits(x: int) -> int:
    os._exit(3)


@pipeline
def exit_code(x: int = 1):
    return one(exits(x))


@step
def shot(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


@pipeline
def killed(x: int = 1):
    return one(shot(x))


@step(resources=Resources(memory="64Mi"))
def greedy(x: int) -> int:
    return len(bytearray(4 * 1024**3)) + x


@pipeline
def out_of_memory(x: int = 1):
    return one(greedy(x))


@step
def sleeps(x: int) -> int:
    time.sleep(1.5)
    return x + 1


@pipeline
def sleeping(x: int = 1):
    return one(sleeps(one(x)))


@step(retries=2, retry_delay=30)
def waits_long(x: int) -> int:
    raise ConnectionError("no answer")


@pipeline
def retrying(x: int = 1):
    return one(waits_long(x))


@step
def text(length: int) -> str:
    return "\n" * length


@step
def lengths(texts: list[str]) -> int:
    return sum(len(item) for item in texts)


@pipeline
def by_reference(length: int = 4000):
    """The same text thirty times exceeds the size limit of a request, so the request passes it by reference."""
    written = text(length)
    return {"length": lengths([written] * 30), "texts": [written] * 30}


@step
def says(word: str) -> str:
    return word


@step
def nothing() -> None:
    return None


@pipeline
def after():
    first = nothing()
    second = nothing().after(first)
    return says("done").after(first, second)


@pipeline
def after_failure(x: int = 1):
    return says("never").after(broken(x))


@pipeline
def empty():
    return None


@pipeline
def constants(name: str = "penstock", sizes: dict[str, int] = {"small": 1}, ratio: float = 0.5):  # noqa: B006, as above
    return {"name": says(name), "sizes": sizes, "ratio": ratio}


@step(name="priced", priority=5, env={"MODE": "fast"})
def by_environment(x: int) -> str:
    return f"{os.environ['MODE']} {x}"


@pipeline
def options(x: int = 1):
    return by_environment(x)


@pipeline
def sub_pipeline(x: int = 1):
    return total([chain(x), chain(one(x))])


@pipeline
def sub_pipeline_failure(x: int = 1):
    return one(failure(x))
