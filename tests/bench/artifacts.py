"""The benchmark of artifact stores, part of `make bench`: prints a table and, as its last line, JSON.

Every ratio is to a plain way of doing the same, measured in the same run and in turns: boto3's `upload_file` and
`download_file` on the same server, a copy with a SHA-256 and a sync on the same disk, a Parquet file written and read.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from penstock import serialize
from penstock.store import FolderStore
from penstock_adapters.files import FolderArtifacts
from penstock_adapters.s3 import S3Artifacts
from penstock_core.ports import ArtifactStore
from penstock_testkit.servers.s3 import BUCKET, S3Server

MIB = 1024 * 1024
SMALL = 1000

TARGETS = {
    "s3_put_over_boto3": ">= 0.9",
    "s3_get_over_boto3": ">= 0.9",
    "folder_put_over_copy_and_hash": ">= 0.8",
    "folder_get_over_copy_and_hash": ">= 0.8",
    "step_put_over_copy_and_hash": ">= 0.8",
    "small_put_s": "<= 2",
    "small_put_in_a_step_s": "<= 2",
    "frame_over_parquet": "<= 1.3",
}


class Source:
    """Return a file of random bytes, different for each `fresh`, so that no store has it already."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        block = os.urandom(16 * MIB)
        with path.open("wb") as file:
            for start in range(0, size, len(block)):
                file.write(block[: min(len(block), size - start)])

    def fresh(self) -> str:
        """Change the first bytes; returns the new digest."""
        with self.path.open("rb+") as file:
            file.write(os.urandom(32))
            os.fsync(file.fileno())
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    os.sync()  # exclude pending writes of others from the measurement
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _read(store: ArtifactStore, sha256: str, target: Path) -> None:
    """Read an object completely into a file with verification, like a download."""
    with target.open("wb", buffering=0) as file:
        async for chunk in store.open(sha256):
            await asyncio.to_thread(file.write, chunk)


async def s3(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """One object of `size` through our store and through boto3's own transfers, on one server."""
    server = S3Server(folder / "s3")
    server.start()
    store = S3Artifacts(server.options("bench"))
    client = server.client()
    source, target = Source(folder / "source", size), folder / "target"
    puts: list[tuple[float, float]] = []
    gets: list[tuple[float, float]] = []
    try:
        await store.prepare()

        for turn in range(rounds):
            sha256 = source.fresh()
            key = f"plain-{turn}"

            async def ours_put(sha256: str = sha256) -> None:
                await store.put_file(str(source.path), sha256, size)

            async def boto_put(key: str = key) -> None:
                await asyncio.to_thread(client.upload_file, str(source.path), BUCKET, key)

            async def ours_get(sha256: str = sha256) -> None:
                await _read(store, sha256, target)

            async def boto_get(key: str = key) -> None:
                await asyncio.to_thread(client.download_file, BUCKET, key, str(target))

            puts.append(await _in_turns(turn, ours_put, boto_put))
            gets.append(await _in_turns(turn, ours_get, boto_get))
            await store.delete(sha256)
            client.delete_object(Bucket=BUCKET, Key=key)
    finally:
        await store.close()
        server.stop()
    return {
        "s3_put_mib_s": size / MIB / statistics.median(ours for ours, _ in puts),
        "s3_get_mib_s": size / MIB / statistics.median(ours for ours, _ in gets),
        "s3_put_over_boto3": statistics.median(boto / ours for ours, boto in puts),
        "s3_get_over_boto3": statistics.median(boto / ours for ours, boto in gets),
    }


async def _in_turns(
    turn: int, ours: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]]
) -> tuple[float, float]:
    """Return the seconds of both; the order alternates."""
    if turn % 2 == 0:
        first = await _timed(ours)
        return first, await _timed(other)
    first = await _timed(other)
    return await _timed(ours), first


def _copy_and_hash(source: Path, target: Path) -> str:
    """What any store must do: read the bytes, hash them, write them, and see them on the disk."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(MIB))
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as write:
        while count := read.readinto(buffer):
            digest.update(buffer[:count])
            write.write(buffer[:count])
        os.fsync(write.fileno())
    return digest.hexdigest()


def _read_and_hash(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(MIB))
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as write:
        while count := read.readinto(buffer):
            digest.update(buffer[:count])
            write.write(buffer[:count])
    return digest.hexdigest()


async def local(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """One object of `size` through the folder store, against copying and hashing it."""
    store = FolderArtifacts(folder / "artifacts")
    step = FolderStore(folder / "artifacts")
    await store.prepare()
    source, target, plain = Source(folder / "source", size), folder / "target", folder / "plain"
    puts: list[tuple[float, float]] = []
    gets: list[tuple[float, float]] = []
    steps: list[float] = []
    for turn in range(rounds):
        sha256 = source.fresh()

        async def ours_put(sha256: str = sha256) -> None:
            await store.put_file(str(source.path), sha256, size)

        async def copy() -> None:
            await asyncio.to_thread(_copy_and_hash, source.path, plain)

        async def ours_get(sha256: str = sha256) -> None:
            await _read(store, sha256, target)

        async def copy_back() -> None:
            await asyncio.to_thread(_read_and_hash, plain, target)

        async def in_a_step() -> None:
            await asyncio.to_thread(step.put_file, source.path)

        puts.append(await _in_turns(turn, ours_put, copy))
        gets.append(await _in_turns(turn, ours_get, copy_back))
        await store.delete(sha256)
        plain.unlink()
        steps.append(puts[-1][1] / await _timed(in_a_step))
        await store.delete(sha256)
    return {
        "folder_put_mib_s": size / MIB / statistics.median(ours for ours, _ in puts),
        "folder_get_mib_s": size / MIB / statistics.median(ours for ours, _ in gets),
        "folder_put_over_copy_and_hash": statistics.median(copied / ours for ours, copied in puts),
        "folder_get_over_copy_and_hash": statistics.median(copied / ours for ours, copied in gets),
        "step_put_over_copy_and_hash": statistics.median(steps),
    }


async def small(folder: Path, rounds: int) -> dict[str, float]:
    """Seconds for 1,000 artifacts of 1 KiB, each durable when its put returns; one after the other."""
    store = FolderArtifacts(folder / "small")
    step = FolderStore(folder / "small")
    await store.prepare()
    found: list[float] = []
    in_a_step: list[float] = []
    for _ in range(rounds):
        data = [os.urandom(1024) for _ in range(SMALL)]

        async def put(data: list[bytes] = data) -> None:
            for one in data:
                await store.put_bytes(one)

        found.append(await _timed(put))
        values = [os.urandom(1024) for _ in range(SMALL)]

        async def save(values: list[bytes] = values) -> None:
            await asyncio.to_thread(serialize.save, values, list[bytes], step)

        in_a_step.append(await _timed(save))
    return {"small_put_s": statistics.median(found), "small_put_in_a_step_s": statistics.median(in_a_step)}


def frame(folder: Path, rounds: int) -> dict[str, float]:
    """A frame of 100 MB from one step to the next, against writing and reading its Parquet file."""
    numbers = np.random.default_rng(1)
    made = pd.DataFrame({f"x{n}": numbers.normal(size=1_250_000) for n in range(10)})
    store = FolderStore(folder / "frames")
    plain = folder / "frame.parquet"
    found: list[tuple[float, float]] = []
    for turn in range(rounds):
        made.iloc[0, 0] = float(turn)

        def ours() -> float:
            os.sync()
            began = time.perf_counter()
            loaded = serialize.load(serialize.save(made, pd.DataFrame, store), pd.DataFrame, store)
            seconds = time.perf_counter() - began
            assert loaded.shape == made.shape
            shutil.rmtree(store.root)
            return seconds

        def parquet() -> float:
            os.sync()
            began = time.perf_counter()
            made.to_parquet(plain)
            loaded = pd.read_parquet(plain)
            seconds = time.perf_counter() - began
            assert loaded.shape == made.shape
            plain.unlink()
            return seconds

        if turn % 2 == 0:
            first = ours()
            found.append((first, parquet()))
        else:
            first = parquet()
            found.append((ours(), first))
    return {
        "frame_s": statistics.median(one for one, _ in found),
        "parquet_s": statistics.median(one for _, one in found),
        "frame_over_parquet": statistics.median(one / other for one, other in found),
    }


def main() -> None:
    """Run all measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024, help="size of the large object")
    parser.add_argument("--only", choices=["s3", "folder", "small", "frame"], help="measure one part")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    results: dict[str, Any] = {}
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "s3": lambda: asyncio.run(s3(folder, options.mib * MIB, options.rounds)),
        "folder": lambda: asyncio.run(local(folder, options.mib * MIB, options.rounds)),
        "small": lambda: asyncio.run(small(folder, options.rounds)),
        "frame": lambda: frame(folder, options.rounds),
    }
    try:
        for name, measure in parts.items():
            if options.only in (None, name):
                results |= measure()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    width = max(map(len, results))
    for name, value in results.items():
        sys.stdout.write(f"{name:<{width}}  {value:>10.2f}  {TARGETS.get(name, '')}\n")
    sys.stdout.write(json.dumps({name: round(value, 4) for name, value in results.items()}) + "\n")


if __name__ == "__main__":
    main()
