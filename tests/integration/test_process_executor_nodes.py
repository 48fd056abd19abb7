"""The process executor on real processes: steps with several nodes, each of which is a process on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Inline
from penstock_testkit.executor_harness import OpenHarness, failed, gone, pid_in

_STEPS = """
    import os, signal, socket, sys, time
    from multiprocessing.connection import Client, Listener
    from pathlib import Path
    from penstock import context

    def all_reduce(values):
        # What the TCP store of torch.distributed does: rank 0 listens at the address that all ranks know.
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if rank == 0:
            with Listener(address, backlog=size) as listener:
                links = [listener.accept() for _ in range(size - 1)]
            total = values[0] + sum(link.recv() for link in links)
            for link in links:
                link.send(total)
            return total
        while True:
            try:
                link = Client(address)
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        link.send(values[rank])
        return link.recv()

    def adds(values):
        print("hello", flush=True)
        context().log_metric(f"rank{context().rank}", context().nodes)
        total = all_reduce(values)
        print(f"total {total} with LOCAL_RANK {os.environ['LOCAL_RANK']}")
        return {"total": total, "rank": context().rank}

    def registers():
        if context().rank == 0:
            context().register_model("m", b"weights")
        else:
            try:
                context().register_model("m", b"weights")
            except RuntimeError as error:
                print(error)

    def one_fails(rank):
        if context().rank == rank:
            time.sleep(0.1)
            raise ValueError("bad batch")
        time.sleep(600)

    def one_dies(folder):
        Path(folder, str(context().rank)).write_text(str(os.getpid()))
        if context().rank == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(0.1)
        raise ConnectionError("peer is gone")

    def sleeps(folder):
        Path(folder, f"{context().rank}.part").write_text(str(os.getpid()))
        os.rename(Path(folder, f"{context().rank}.part"), Path(folder, str(context().rank)))
        time.sleep(600)

    def checkpoints(folder):
        def end(*_):
            if context().rank == 0:
                context().checkpoint({"epoch": 3})
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        sleeps(folder)

    def leaves_a_printer():
        import subprocess
        subprocess.Popen(["yes"])
        return os.environ["RANK"]

    def prints_much():
        for _ in range(2000):
            print("x" * 100)
        sys.stdout.write("no line break")
"""


async def test_ranks_find_each_other_and_rank_0_returns(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_STEPS)
    end = await b.run("adds", {"values": [1, 10, 100, 1000]}, nodes=4)
    assert end.outcome is Outcome.SUCCEEDED, end.error
    assert end.outputs == {"result": Inline({"total": 1111, "rank": 0})}
    assert end.metrics == {f"rank{n}": 4 for n in range(4)}
    lines = sorted(b.events.text("adds").splitlines())
    wanted = [f"[rank {n}] {text}" for n in range(4) for text in ("hello", f"total 1111 with LOCAL_RANK {n}")]
    assert lines == sorted(wanted)


async def test_only_rank_0_registers_models(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_STEPS)
    end = await b.run("registers", nodes=2)
    assert end.outcome is Outcome.SUCCEEDED, end.error
    assert [one.model for one in end.models] == ["m"]
    assert "[rank 1] register_model('m') in a worker process" in b.events.text("registers")


async def test_a_failure_of_one_rank_ends_the_step(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_STEPS)
    for rank in (0, 2):
        end = await b.run("one_fails", {"rank": rank}, nodes=3, key=f"fails{rank}")
        failed(end, "ValueError", f"rank {rank} of 3: bad batch")
        assert end.error is not None and "one_fails" in end.error.traceback


async def test_a_crash_is_the_cause_and_not_what_others_make_of_it(
    executor_harness: OpenHarness, tmp_path: Path
) -> None:
    b = await executor_harness(_STEPS)
    end = await b.run("one_dies", {"folder": str(tmp_path)}, nodes=3)
    failed(end, "Signal", "rank 2 of 3: the step's process was killed by signal 11 (SIGSEGV)")
    await gone(*[await pid_in(tmp_path / str(rank)) for rank in range(3)])


async def test_a_timeout_and_a_cancel_end_all_ranks(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness(_STEPS)
    end = await b.run("sleeps", {"folder": str(tmp_path)}, nodes=2, timeout=2)
    assert end.outcome is Outcome.TIMED_OUT
    await gone(*[await pid_in(tmp_path / str(rank)) for rank in range(2)])


async def test_ranks_end_gracefully(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness(_STEPS, grace=20.0)
    started = asyncio.create_task(b.run("checkpoints", {"folder": str(tmp_path)}, nodes=2, timeout=3))
    pids = [await pid_in(tmp_path / str(rank)) for rank in range(2)]
    assert (await started).outcome is Outcome.TIMED_OUT
    await gone(*pids)
    assert [one.name for one in b.events.commits["checkpoints"]] == ["checkpoint"]


async def test_output_is_complete(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_STEPS)
    end = await b.run("prints_much", nodes=2)
    assert end.outcome is Outcome.SUCCEEDED, end.error
    text = b.events.text("prints_much")
    for rank in range(2):
        assert text.count(f"[rank {rank}] {'x' * 100}\n") == 2000
        assert f"[rank {rank}] no line break" in text


async def test_a_process_that_a_rank_leaves_behind_does_not_keep_the_step_running(
    executor_harness: OpenHarness,
) -> None:
    b = await executor_harness(_STEPS)
    end = await asyncio.wait_for(b.run("leaves_a_printer", nodes=2), 60.0)
    assert end.outcome is Outcome.SUCCEEDED, end.error
    assert end.outputs == {"result": Inline("0")}
