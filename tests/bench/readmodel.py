"""How long lists and run pages take on a year of runs: 1,000,000 runs with 10 attempts each, by default.

    python tests/bench/readmodel.py sqlite --runs 1000000
    python tests/bench/readmodel.py postgresql --runs 1000000

The database generates the rows from the numbers of the runs. Prints median and longest of the times of each
query, in milliseconds, and the limits that are aimed at.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import string
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock_adapters.sql import engine, migrate, run_details
from penstock_adapters.sql import search as sql_search
from penstock_adapters.sql.engine import Database
from penstock_core.queries import search
from penstock_core.queries.search import RunQuery
from penstock_testkit.servers.postgres import PostgresServer

YEAR = 365 * 86_400
START = 1_700_000_000
LIMITS = {"sqlite": 150.0, "postgresql": 50.0}
ATTEMPTS = 10
REPEATS = 15

FILL = Path(__file__).with_name("readmodel.sql")
"""One statement a table: `$numbers` gives the numbers of the runs, `$id` a run's id, `$gap` the seconds between two."""

NUMBERS = {
    "postgresql": "numbers AS (SELECT generate_series(1, $runs) AS n), "
    "steps AS (SELECT generate_series(0, $last) AS i)",
    "sqlite": "RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $runs), "
    "steps(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM steps WHERE i < $last)",
}
IDS = {"postgresql": "'r' || lpad(n::text, 9, '0')", "sqlite": "'r' || substr('000000000' || n, -9)"}


def queries(runs: int) -> dict[str, RunQuery]:
    """The typical queries on a year of runs; the last pages are in the middle of it."""
    middle = search.Key(START + YEAR / 2, f"r{runs // 2:09d}")
    return {
        "newest": RunQuery(),
        "newest, page in the middle": RunQuery(after=middle),
        "of a pipeline": RunQuery(pipeline="pipeline-7"),
        "running": RunQuery(state="running"),
        "failed, of a pipeline": RunQuery(pipeline="pipeline-7", state="failed"),
        "by trigger": RunQuery(trigger="cron"),
        "in a week": RunQuery(since=START + YEAR / 2, until=START + YEAR / 2 + 7 * 86_400),
        "common label": RunQuery(labels=(search.label("team=team-3"),)),
        "rare label": RunQuery(labels=(search.label("number=4321"),)),
        "loss<0.2": RunQuery(metrics=(search.condition("loss<0.2"),)),
        "loss<0.0001": RunQuery(metrics=(search.condition("loss<0.0001"),)),
        "loss<0.2, depth=4, of a pipeline": RunQuery(
            pipeline="pipeline-4", metrics=(search.condition("loss<0.2"),), params=(search.condition("depth=4"),)
        ),
        "by duration": RunQuery(sort=search.sort("-duration")),
        "by duration, of a pipeline": RunQuery(pipeline="pipeline-7", sort=search.sort("duration")),
        "by accuracy": RunQuery(sort=search.sort("-metric:accuracy")),
        "by accuracy, failed": RunQuery(state="failed", sort=search.sort("-metric:accuracy")),
        "by id": RunQuery(prefix=f"r{runs // 3:09d}"),
    }


def fill(database: Database, runs: int) -> None:
    """Generate the rows."""
    kind = database.write.dialect.name
    words = {"runs": runs, "last": ATTEMPTS - 1, "gap": repr(YEAR / runs), "start": START, "id": IDS[kind]}
    numbers = string.Template(NUMBERS[kind]).substitute(words)
    for statement in FILL.read_text().strip().split("\n\n"):
        begun = time.monotonic()
        text = string.Template(statement).substitute(words, numbers=numbers)
        with database.write.begin() as connection:
            connection.exec_driver_sql(text.replace("%", "%%") if database.postgres else text)
        print(f"  {statement.split()[2]:<10} {time.monotonic() - begun:8.1f} s", flush=True)
    with database.write.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()


def measure(action: Callable[[], object]) -> tuple[float, float]:
    """Median and longest time in milliseconds; the first time is not counted."""
    action()
    times: list[float] = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        action()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times), max(times)


@contextlib.contextmanager
def opened(kind: str, folder: Path) -> Iterator[Database]:
    """A database with empty tables."""
    server = PostgresServer() if kind == "postgresql" else None
    try:
        if server is not None:
            server.start()
        database = engine.connect(server.database() if server else folder / "read-model.db")
        migrate.migrate(database)
        yield database
        database.close()
    finally:
        if server is not None:
            server.stop()


def main() -> None:
    """Run the measurements on one database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(LIMITS))
    parser.add_argument("--runs", type=int, default=1_000_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        opened(options.kind, Path(folder)) as database,
    ):
        print(f"{options.kind}: {options.runs} runs, {options.runs * ATTEMPTS} attempts")
        fill(database, options.runs)
        print(f"{'query':<36} {'median':>8} {'longest':>8}  limit {LIMITS[options.kind]:g} ms")
        for name, query in queries(options.runs).items():
            median, longest = measure(lambda query=query: sql_search.page(database, query))
            print(
                f"{name:<36} {median:8.1f} {longest:8.1f}  {'' if median <= LIMITS[options.kind] else 'TOO SLOW'}",
                flush=True,
            )
        run_id = f"r{options.runs // 2:09d}"
        median, longest = measure(lambda: run_details.run(database, run_id))
        print(f"{'a run with its attempts':<36} {median:8.1f} {longest:8.1f}")


if __name__ == "__main__":
    main()
