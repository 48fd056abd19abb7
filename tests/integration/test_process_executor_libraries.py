"""The process executor and libraries with threads of their own: supported and rejected uses in forked processes."""

from __future__ import annotations

from penstock_core.facts import Outcome
from penstock_testkit.executor_harness import OpenHarness


async def test_polars_computes_in_forked_steps(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import polars as pl

        NAMES = pl.DataFrame({"a": [1, 2]})

        def total(n):
            return pl.DataFrame({"a": range(n)}).group_by(pl.col("a") % 2).agg(pl.len().alias("n"))["n"].sum()
    """)
    for n in (10, 20_000):
        end = await b.run("total", {"n": n})
        assert end.outcome is Outcome.SUCCEEDED, end.error


async def test_polars_at_import_time_is_rejected_instead_of_hanging(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import polars as pl

        HOT = pl.DataFrame({"a": range(1000)}).group_by(pl.col("a") % 7).agg(pl.len())

        def total():
            return HOT.height
    """)
    end = await b.run("total", {})
    assert end.outcome is Outcome.FAILED and end.error is not None
    assert "runs a polars query while it is imported" in end.error.message
    assert "move the query into a step or a function" in end.error.message
