"""The executor's service with a slow or failing platform: concurrent cancels, slots, and state per attempt."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace

import pytest
from executor_fakes import ServiceHarness

from penstock_contracts import subjects
from penstock_core import exhaustion
from penstock_core.facts import AttemptFinished, AttemptStarted, AttemptStopped, ErrorInfo, Outcome
from penstock_core.ownership import OwnerStatus
from penstock_core.ports import Recorded
from penstock_core.shipping.messages import Messages
from penstock_executor.interpreters import EnvironmentMissingError
from penstock_executor.sources import WorkplaceError


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_attempt_without_its_environment_is_handed_back_a_few_times_before_it_fails() -> None:
    bench = ServiceHarness()
    bench.processes.error = EnvironmentMissingError("numpy 2.0 is missing")
    deliveries = [bench.deliver("a")]
    await _settle()
    for delivered in (2, 3, 4):
        assert (bench.platform.back, bench.platform.log, bench.service.active_count) == (deliveries, [], 0)
        deliveries.append(bench.deliver("a", delivered=delivered))
        await _settle()
    [end] = [fact for fact in bench.platform.log if isinstance(fact, AttemptFinished)]
    assert (end.outcome, end.error and end.error.type) == (Outcome.FAILED, "EnvironmentMissing")
    assert bench.platform.acked == deliveries[-1:]


async def test_an_end_that_cannot_be_recorded_is_redelivered() -> None:
    bench = ServiceHarness()
    delivery = bench.deliver("a")
    await _settle()
    bench.platform.refuses = 2
    bench.end("a")
    await _settle()
    assert (bench.platform.back, bench.platform.acked) == ([delivery], [])
    assert bench.service.active_count == 0
    assert bench.wanted[-1] == 2


async def test_a_useless_delivery_is_replaced_at_once() -> None:
    bench = ServiceHarness()
    bench.deliver("a")
    await _settle()
    asked = len(bench.wanted)
    bench.deliver("a", seq=2)
    bench.deliver("b", body=b"no json", seq=3)
    assert bench.wanted[asked:] == [1, 1]


async def test_finished_attempts_leave_no_state() -> None:
    bench = ServiceHarness()
    for n in range(50):
        bench.deliver(f"s-{n}")
        await _settle()
        for message in Messages(("r", f"s-{n}", 1)).output([{"at": 0.0, "stream": "output", "text": "x"}]):
            bench.service.publish(message)
        bench.end(f"s-{n}")
        await _settle()
    assert bench.service.active_count == 0
    assert len(bench.platform.published) == len(set(bench.platform.forgotten)) == 50
    assert len(bench.platform.acked) == 50


async def test_an_attempt_ended_in_the_log_by_others_is_stopped() -> None:
    bench = ServiceHarness()
    bench.deliver("a")
    await _settle()
    place = subjects.finished("r", "a", 1)
    end = AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.TIMED_OUT)
    await bench.service.find_ended_attempts()
    assert bench.processes.cancelled == []
    bench.platform.known[place] = Recorded(1, 0.0, end)
    await bench.service.find_ended_attempts()
    await bench.service.find_ended_attempts()
    assert bench.processes.cancelled == ["a"]


async def test_a_cancel_while_an_attempt_is_submitted_reaches_the_adapter() -> None:
    bench = ServiceHarness()
    bench.processes.ready.clear()
    bench.deliver("a")
    await _settle()
    await bench.service.cancel("r", "enough")
    assert bench.processes.cancelled == ["a"]


async def test_attempts_that_outlive_the_executor_are_handed_on_when_it_stops() -> None:
    bench = ServiceHarness(durable=True)
    delivery = bench.deliver("a")
    await _settle()
    await bench.service.extend_deliveries()
    assert (bench.platform.acked, bench.platform.extended) == ([], [delivery])
    await bench.service.stop(drain=30.0)
    assert (bench.platform.acked, bench.platform.back, bench.platform.log) == ([], [delivery], [])


@pytest.mark.parametrize("durable", [False, True])
async def test_a_delivery_stays_in_flight_until_the_end_is_in_the_log(durable: bool) -> None:
    bench = ServiceHarness(durable=durable)
    delivery = bench.deliver("a")
    await _settle()
    await bench.service.extend_deliveries()
    assert (bench.platform.acked, bench.platform.extended) == ([], [delivery])
    bench.end("a")
    await _settle()
    assert bench.platform.acked == [delivery]


async def test_an_attempt_finished_in_the_log_is_never_submitted_to_a_durable_backend() -> None:
    """Even at its first delivery: the durable backend may have removed it since."""
    bench = ServiceHarness(durable=True)
    bench.service.horizon = 0
    end = AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.SUCCEEDED)
    bench.platform.known[subjects.finished("r", "a", 1)] = Recorded(1, 0.0, end)
    delivery = bench.deliver("a")
    await _settle()
    assert (bench.processes.started, bench.platform.acked) == ([], [delivery])


OWNED = AttemptStarted(run_id="r", key="a", attempt=1, executor="other", fence=3)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("standing", [OwnerStatus.ACTIVE, OwnerStatus.SILENT])
async def test_a_repeated_attempt_waits_while_another_executor_may_have_it(known: bool, standing: OwnerStatus) -> None:
    bench = ServiceHarness()
    if known:
        bench.platform.known[subjects.run("r", OWNED.tail)] = Recorded(1, 0.0, OWNED)
    bench.platform.owner, bench.platform.rivals = standing, [OwnerStatus.GONE, standing]
    delivery = bench.deliver("a", delivered=2)
    await _settle()
    assert (bench.processes.started, bench.platform.log, bench.platform.back) == ([], [], [delivery])


async def test_a_repeated_attempt_is_owned_before_it_starts_and_lost_if_its_owner_is_gone() -> None:
    bench = ServiceHarness()
    bench.deliver("b", delivered=2)
    await _settle()
    [owner] = [fact for fact in bench.platform.log if isinstance(fact, AttemptStarted)]
    assert (owner.key, owner.executor, owner.fence, bench.processes.started) == ("b", "e", 7, ["b"])
    bench.platform.known[subjects.run("r", OWNED.tail)] = Recorded(1, 0.0, OWNED)
    bench.deliver("a", delivered=2)
    await _settle()
    [end] = [fact for fact in bench.platform.log if isinstance(fact, AttemptFinished)]
    assert (end.key, end.outcome, bench.processes.started) == ("a", Outcome.LOST, ["b"])


async def test_a_cancelled_attempt_that_another_executor_has_gets_no_end_here() -> None:
    """Its slots would be released while its process goes on."""
    bench = ServiceHarness()
    await bench.service.cancel("r", "enough")
    bench.platform.known[subjects.run("r", OWNED.tail)] = Recorded(1, 0.0, OWNED)
    bench.platform.owner = OwnerStatus.ACTIVE
    delivery = bench.deliver("a", delivered=2, limited=True)
    await _settle()
    assert (bench.platform.log, bench.platform.back) == ([], [delivery])


async def test_an_attempt_with_slots_starts_only_with_a_lease_and_as_its_owner() -> None:
    bench = ServiceHarness()
    bench.platform.fencing_number = 0
    first = bench.deliver("a", limited=True)
    await _settle()
    bench.platform.fencing_number = 7
    bench.platform.log.append(replace(OWNED, key="b"))
    second = bench.deliver("b", limited=True)
    await _settle()
    assert (bench.processes.started, bench.platform.back) == ([], [first, second])
    bench.deliver("c", limited=True)
    await _settle()
    assert bench.processes.started == ["c"]


async def test_an_attempt_with_slots_that_has_ended_does_not_start_and_is_recorded_as_stopped() -> None:
    bench = ServiceHarness()
    end = AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.CANCELLED)
    bench.platform.log.append(end)
    delivery = bench.deliver("a", limited=True)
    await _settle()
    assert (bench.processes.started, bench.platform.back) == ([], [delivery])
    for fact in bench.platform.log:
        bench.platform.known[subjects.run("r", fact.tail)] = Recorded(1, 0.0, fact)
    again = bench.deliver("a", limited=True, delivered=2)
    await _settle()
    assert bench.platform.log[-1] == AttemptStopped(run_id="r", key="a", attempt=1)
    assert (bench.processes.started, bench.platform.acked) == ([], [again])


async def test_a_process_of_an_attempt_that_another_executor_owns_is_ended_and_records_nothing() -> None:
    bench = ServiceHarness()
    delivery = bench.deliver("a")
    await _settle()
    bench.platform.log.append(OWNED)
    bench.service.started(AttemptStarted(run_id="r", key="a", attempt=1, executor="e"))
    await until(lambda: bench.processes.cancelled == ["a"])
    bench.service.finished(AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.CANCELLED))
    await _settle()
    assert (bench.platform.log, bench.platform.acked, bench.service.active_count) == ([OWNED], [delivery], 0)


async def test_an_attempt_without_room_for_its_process_is_handed_back_and_never_fails() -> None:
    bench = ServiceHarness()
    shortage = ErrorInfo(type=exhaustion.OUT_OF_RESOURCES, message="no process")
    end = AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.LOST, error=shortage)
    for number in range(30):
        delivery = bench.deliver("a", limited=True, delivered=number + 1)
        await _settle()
        bench.service.finished(end)
        await _settle()
        assert (bench.platform.back[-1], bench.service.shortages) == (delivery, number + 1)
    bench.processes.error = OSError(errno.ENOSPC, "No space left on device")
    bench.deliver("a", limited=True, delivered=31)
    await _settle()
    [last] = [fact for fact in bench.platform.log if isinstance(fact, AttemptFinished)]
    assert (last.outcome, last.error and last.error.type) == (Outcome.LOST, exhaustion.OUT_OF_RESOURCES)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC])
async def test_errors_of_an_exhausted_machine_are_not_the_users(number: int) -> None:
    bench = ServiceHarness()
    bench.processes.error = WorkplaceError("the source bundle cannot be unpacked")
    bench.processes.error.__cause__ = OSError(number, "")
    delivery = bench.deliver("a")
    await _settle()
    assert (bench.platform.back, bench.platform.log) == ([delivery], [])


async def test_an_end_that_others_recorded_before_is_followed_by_the_stop() -> None:
    bench = ServiceHarness()
    bench.deliver("a", limited=True)
    await _settle()
    bench.platform.log.append(AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.CANCELLED))
    bench.service.finished(AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.CANCELLED))
    await _settle()
    assert bench.platform.log[-1] == AttemptStopped(run_id="r", key="a", attempt=1)


async def test_a_started_attempt_on_a_durable_backend_is_resubmitted_and_not_lost() -> None:
    bench = ServiceHarness(durable=True)
    started = AttemptStarted(run_id="r", key="a", attempt=1, executor="other")
    bench.platform.known[subjects.run("r", "step.a.1.started")] = Recorded(1, 0.0, started)
    bench.deliver("a", delivered=2)
    await _settle()
    assert bench.processes.started == ["a"] and bench.platform.log == []
