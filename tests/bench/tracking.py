"""What a measurement costs: a call of `log_metric`, its bytes, and 100,000 points on their way through the tables.

Prints ratios to a limit program measured in the same run: appending a line of 60 bytes to a file.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from penstock.runner.recorder import Recorder
from penstock.step_context.contexts import Context
from penstock_adapters.files.growing_file import AppendedFile
from penstock_adapters.sql import engine, migrate, series, writer
from penstock_adapters.sql.series import PointBatch
from penstock_core.shipping.messages import measurements
from penstock_core.shipping.tail import PointReader

POINTS = 100_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        limit = _appending(Path(folder, "limit"))
        each, size = _logging(f"{folder}/slot")
        print(f"append of a line       {limit * 1e6:6.2f} µs")
        print(f"log_metric             {each * 1e6:6.2f} µs, {each / limit:.1f} × that; {size:.0f} B a point")
        parts = _read(f"{folder}/slot.points")
        _stored(parts, Path(folder, "read-model.db"))


def _appending(path: Path) -> float:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line = b"x" * 59 + b"\n"
    began = time.perf_counter()
    for _ in range(POINTS):
        os.write(handle, line)
    took = time.perf_counter() - began
    os.close(handle)
    return took / POINTS


def _logging(base: str) -> tuple[float, float]:
    recorder = Recorder(base, lambda name, value: {}, lambda saved: saved, lambda saved: None, lambda saved: saved)
    context = Context(sink=recorder)
    began = time.perf_counter()
    for step in range(POINTS):
        context.log_metric("train/loss", 1 / (step + 1), step=step)
    return (time.perf_counter() - began) / POINTS, recorder.size / POINTS


def _read(path: str) -> list[PointBatch]:
    points, parts, first, size = PointReader(AppendedFile(path)), [], 0, 0
    began = time.perf_counter()
    while True:
        found = points.read(True)
        if found:
            size += len(measurements("run", "train", 1, first, found))
            parts.append(PointBatch(len(parts) + 1, "run", "train", 1, first, found))
            first += len(found)
        if points.exhausted:
            break
    took = time.perf_counter() - began
    print(f"read and put in columns {took:5.2f} s, {len(parts)} messages, {size / POINTS:.0f} B a point")
    return parts


def _stored(parts: list[PointBatch], path: Path) -> None:
    database = engine.connect(path)
    migrate.migrate(database)
    writer.begin(database, series.STREAM, "log", 1 << 60)
    began = time.perf_counter()
    writer.measure(database, series.STREAM, 0, len(parts), lambda last: parts)
    wrote = time.perf_counter()
    (one,) = series.summaries(database, "run")
    summed = time.perf_counter()
    thin = series.thinned(database, "run", one, 500)
    done = time.perf_counter()
    print(f"written                {wrote - began:6.3f} s; summary {(summed - wrote) * 1000:.1f} ms")
    print(f"thinned to {len(thin.points)}         {done - summed:6.3f} s")
    database.close()


if __name__ == "__main__":
    main()
