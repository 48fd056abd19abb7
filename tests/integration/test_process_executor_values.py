"""The process executor on real processes: inputs, outputs and the environment of a step."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.step_context import seeding
from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Fields, Inline, Items, Stored
from penstock_testkit.executor_harness import ExecutorHarness, OpenHarness

# ------------------------------------------------------------------------------------------------ values in and out


async def test_inline_inputs_and_outputs(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        def add(a: int, items: list, mapping: dict) -> int:
            return a + sum(items) + mapping["x"]
    """)
    end = await b.run("add", {"a": 1, "items": Items((Inline(2), Inline(3))), "mapping": Fields({"x": Inline(4)})})
    assert (end.outcome, end.error, end.outputs) == (Outcome.SUCCEEDED, None, {"result": Inline(10)})
    assert end.executor == "here"
    began = b.events.began["add"]
    assert (began.executor, began.pid > 0, began.host != "") == ("here", True, True)
    assert began.started_at - 1 < end.started_at <= end.finished_at


async def test_defaults_fill_missing_inputs(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def scale(x, factor=3): return x * factor")
    assert (await b.run("scale", {"x": 2})).outputs == {"result": Inline(6)}


async def test_artifacts_pass_between_steps(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import pandas as pd
        from pathlib import Path

        def table(): return pd.DataFrame({"a": [1, 2, 3]})
        def total(data): return int(data["a"].sum())
        def page():
            Path("report.html").write_text("<p>done</p>")
            return Path("report.html")
        def read(page): return page.read_text()
    """)
    made = (await b.run("table")).outputs["result"]
    assert isinstance(made, Stored) and made.artifact.format == "parquet"
    assert (await b.run("total", {"data": made})).outputs == {"result": Inline(6)}
    stored = (await b.run("page")).outputs["result"]
    assert isinstance(stored, Stored) and stored.artifact.filename == "report.html"
    assert (await b.run("read", {"page": stored})).outputs == {"result": Inline("<p>done</p>")}


async def test_numbers_without_a_json_form_round_trip(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        def odd(): return [float("nan"), float("inf"), 2**70, "\\udc80"]
        def check(values):
            nan, inf, big, text = values
            return nan != nan and inf > 1e300 and big == 2**70 and text == "\\udc80"
    """)
    odd = (await b.run("odd")).outputs["result"]
    assert (await b.run("check", {"values": odd})).outputs == {"result": Inline(True)}


async def test_large_inputs_and_outputs(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        def size(**parts): return sum(map(len, parts.values()))
        def big(): return "x" * 300_000
        def texts(count):
            return ["y" * 1000] * count
    """)
    parts = {f"p{n}": "z" * 60_000 for n in range(8)}  # far more than one packet
    assert (await b.run("size", parts)).outputs == {"result": Inline(480_000)}
    big = (await b.run("big")).outputs["result"]
    assert isinstance(big, Stored) and big.artifact.size == 300_000
    assert (await b.run("size", {"big": big}, key="again")).outputs == {"result": Inline(300_000)}
    assert isinstance((await b.run("texts", {"count": 50})).outputs["result"], Inline)  # inline, but beyond a packet


async def test_an_async_step_is_awaited(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import asyncio

        async def later(x):
            await asyncio.sleep(0.01)
            return x + 1
    """)
    assert (await b.run("later", {"x": 1})).outputs == {"result": Inline(2)}


async def test_inputs_and_outputs_match_type_hints(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        from dataclasses import dataclass
        from typing import NamedTuple
        import pandas as pd
        from penstock import step

        @dataclass
        class Config:
            depth: int

        class Parts(NamedTuple):
            train: pd.DataFrame
            rows: int

        @step
        def config(depth: int) -> Config: return Config(depth)

        @step
        def split(table: pd.DataFrame, config: Config) -> Parts:
            half = table.head(config.depth)
            return Parts(half, len(half))

        @step
        def table() -> pd.DataFrame: return pd.DataFrame({"a": [1, 2, 3]})

        @step
        def wrong() -> int: return "text"
    """)
    inputs = {
        name: (await b.run(name, given)).outputs["result"] for name, given in [("table", {}), ("config", {"depth": 2})]
    }
    end = await b.run("split", inputs)
    assert end.error is None and end.outputs["rows"] == Inline(2)
    assert isinstance(end.outputs["train"], Stored)
    for given, texts in [({"depth": "deep"}, ("input 'depth'", "config", "int")), ({}, ("depth",))]:
        error = (await b.run("config", given, key=f"config-{len(given)}")).error
        assert error is not None and error.type == "TypeError" and all(text in error.message for text in texts)
    error = (await b.run("wrong")).error
    assert error is not None and error.type == "TypeError" and "output 'result' of step 'wrong'" in error.message
    assert error.traceback == ""  # none of it comes from the user


async def test_steps_of_several_modules_share_a_fork_server(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def one(): return __import__('os').getppid()")
    b.write("more", "import steps\n\ndef two(): return steps.one()")
    first = await b.run("one")
    second = await b.run("more:two", key="two")
    assert first.outputs == second.outputs


# --------------------------------------------------------------------------------------------------- the surroundings


async def test_an_attempt_has_its_own_folder_environment_and_random_numbers(
    executor_harness: OpenHarness, tmp_path: Path
) -> None:
    b = await executor_harness(
        """
        import os, random
        import numpy as np

        AT_IMPORT = os.environ.get("SHADE")

        def look():
            open("mine.txt", "x").close()
            return {"cwd": os.getcwd(), "shade": [AT_IMPORT, os.environ.get("SHADE")], "url": os.environ["URL"],
                    "secret": os.environ.get("PENSTOCK_TOKEN"), "random": [random.random(), float(np.random.rand())]}
        """,
        env={"URL": "http://x"},
    )
    looks = [(await b.run("look", key=f"look{n}", env={"SHADE": "red"})).outputs["result"] for n in range(3)]
    seen = [look.value for look in looks if isinstance(look, Inline)]
    assert len(seen) == 3
    assert len({look["cwd"] for look in seen}) == 3
    assert all(look["shade"] == ["red", "red"] and look["url"] == "http://x" for look in seen)
    assert len({look["random"][0] for look in seen}) == len({look["random"][1] for look in seen}) == 3
    assert all(Path(look["cwd"]).is_relative_to(tmp_path / "home" / "work") for look in seen)
    await asyncio.sleep(0.1)
    assert not any(Path(look["cwd"]).exists() for look in seen)


async def test_platform_secrets_are_not_visible_to_steps(
    executor_harness: OpenHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN", "s3cret")
    monkeypatch.setenv("PENSTOCK_NATS_URL", "nats://s3cret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    b = await executor_harness("def env(): return dict(__import__('os').environ)")
    got = (await b.run("env")).outputs["result"]
    assert isinstance(got, Inline)
    assert "s3cret" not in json.dumps(got.value)
    assert got.value["LC_ALL"] == "C.UTF-8"


async def test_random_generators_seeded_by_the_module_keep_their_seed(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import random
        import numpy as np
        random.seed(7)
        np.random.seed(7)

        def draw(): return [random.random(), float(np.random.rand())]
    """)
    draws = [(await b.run("draw", key=f"draw{n}")).outputs["result"] for n in range(2)]
    assert draws[0] == draws[1]
    assert isinstance(draws[0], Inline)
    assert draws[0].value[0] == random.Random(7).random()


_GENERATORS = """
    import random
    import numpy as np
    from penstock import context

    PLAIN = random.Random()
    RNG = np.random.default_rng()
    STATE = np.random.RandomState()
    SEQUENCE = np.random.SeedSequence()
    CHILD = np.random.default_rng(SEQUENCE.spawn(1)[0])
    SEEDED = [random.Random(1), np.random.default_rng(1), np.random.RandomState(1)]
    RESEEDED = random.Random()
    RESEEDED.seed(3)

    def draw():
        spawned = np.random.default_rng(SEQUENCE.spawn(1)[0])
        return [
            [PLAIN.random(), STATE.rand(), random.random(), np.random.rand(), context().seed]
            + [one.random() for one in (RNG, CHILD, spawned, RNG.spawn(1)[0])],
            [SEEDED[0].random(), SEEDED[1].random(), SEEDED[2].rand(), RESEEDED.random()],
        ]
"""


async def test_generators_made_at_import_differ_between_attempts(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_GENERATORS)
    draws = [(await b.run("draw", key=f"draw[{n}]")).outputs["result"] for n in range(3)]
    fresh, seeded = zip(*(draw.value for draw in draws if isinstance(draw, Inline)), strict=True)
    assert all(len(set(column)) == 3 for column in zip(*fresh, strict=True))
    assert seeded[0] == seeded[1] == seeded[2]
    assert seeded[0][0] == random.Random(1).random() and seeded[0][3] == random.Random(3).random()


async def test_the_seed_of_a_step_makes_all_generators_reproducible(
    executor_harness: OpenHarness, tmp_path: Path
) -> None:
    b = await executor_harness(_GENERATORS)
    ends = [await b.run("draw", key=key, seed=7) for key in ("draw[0]", "draw[1]")]
    async with ExecutorHarness(tmp_path / "other", _GENERATORS) as c:
        await c.executor.submit(replace(c.request("draw", key="draw[0]", seed=7), run_id="run2", attempt=2))
        ends.append(await c.events.until("ends", "draw[0]"))
    first, other_item, other_run = (end.outputs["result"] for end in ends)
    assert first == other_run
    assert isinstance(first, Inline) and isinstance(other_item, Inline)
    assert all(one != two for one, two in zip(first.value[0], other_item.value[0], strict=True))
    assert first.value[0][4] == seeding.derive(7, "draw[0]")


# ------------------------------------------------------------------------------------------------------------ numbers


async def test_two_hundred_attempts_eight_at_a_time(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def square(n): return n * n")
    numbers = iter(range(200))

    async def worker() -> None:
        for n in numbers:
            end = await b.run("square", {"n": n}, key=f"square[{n}]")
            assert end.outputs == {"result": Inline(n * n)}

    await asyncio.gather(*(worker() for _ in range(8)))
    assert len(b.events.ends) == len(b.events.began) == 200
    assert len({fact.pid for fact in b.events.began.values()}) == 200


async def test_a_running_attempt_is_not_started_twice(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness("""
        import os, time

        def once(folder):
            open(os.path.join(folder, f"ran-{os.getpid()}"), "x").close()
            time.sleep(0.2)
    """)
    request = b.request("once", {"folder": str(tmp_path)})
    for _ in range(3):
        await b.executor.submit(request)
    await b.events.until("began", "once")
    await b.executor.submit(request)
    await b.events.until("ends", "once")
    assert len(list(tmp_path.glob("ran-*"))) == 1


async def test_prepare_imports_modules_ahead(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness(
        f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch(exist_ok=False)\ndef f(): pass"
    )
    await b.executor.preload("steps", b.where)
    async with asyncio.timeout(20):
        while not (tmp_path / "imported").exists():
            await asyncio.sleep(0.01)
    assert (await b.run("f")).outcome is Outcome.SUCCEEDED
