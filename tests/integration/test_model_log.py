"""The logs of models on a real server: concurrent changes, unreadable facts, lost answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.server import EmbeddedServer
from penstock_contracts import subjects
from penstock_core.errors import UnavailableError
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.registry import decide
from penstock_core.registry.decide import Actor, Decision, Origin, Promotion, VersionDetails
from penstock_core.registry.errors import GateRefusedError, NotFoundError
from penstock_core.registry.facts import ModelPromoted, ModelRegistered
from penstock_core.registry.state import Model
from penstock_servicekit.nats_connection import connect, servers

WHO = Actor("ada", 1.0)


@asynccontextmanager
async def server(home: Path) -> AsyncIterator[Bus]:
    running = EmbeddedServer(home, fsync=False)
    await running.start()
    watch = asyncio.create_task(running.supervise())
    broker, bus = await connect(servers(running.url), "test", asyncio.get_running_loop().create_future())
    try:
        await bootstrap(bus, pools=["default"])
        yield bus
    finally:
        await asyncio.wait_for(broker.stop(), 5)
        await running.stop()
        await watch


def origin(n: int, attempt: int = 1) -> Origin:
    ref = ArtifactRef(sha256=f"{n:064x}", size=n, media_type="application/octet-stream", format="pickle")
    return Origin(artifact=ref, run_id="r", key="train", attempt=attempt)


async def register(log: ModelLog, n: int, name: str = "churn", **metrics: float) -> int:
    decision, _ = await log.change(
        "default", name, lambda model: decide.register(model, origin(n), VersionDetails(metrics=metrics), WHO)
    )
    return decision.version


async def promote(log: ModelLog, version: int, name: str = "churn", **more: Any) -> Decision:
    promotion = Promotion(alias="champion", version=version, **more)
    decision, _ = await log.change("default", name, lambda model: decide.promote(model, promotion, WHO))
    return decision


@pytest.mark.asyncio
async def test_concurrent_promotions_lose_no_move(tmp_path: Path) -> None:
    async with server(tmp_path) as bus:
        first = ModelLog(bus, "test")
        for n in range(1, 9):
            await register(first, n)
        logs = [ModelLog(bus, f"replica-{n}") for n in range(6)]

        async def moves(log: ModelLog, seed: int) -> list[ModelPromoted]:
            chance, made = random.Random(seed), list[ModelPromoted]()
            for _ in range(12):
                decision = await promote(log, chance.randint(1, 8), reason=str(seed))
                made += [fact for fact in decision.facts if isinstance(fact, ModelPromoted)]
            return made

        made = await asyncio.gather(*(moves(log, seed) for seed, log in enumerate(logs)))
        model = await ModelLog(bus, "reader").get("default", "churn")
        kept = [fact for fact in model.history if isinstance(fact, ModelPromoted)]
        # Exactly the acknowledged moves, in order, and each saw the previous one.
        assert sorted(fact.revision for several in made for fact in several) == [fact.revision for fact in kept]
        assert [fact.previous for fact in kept] == [None, *(fact.version for fact in kept[:-1])]
        assert [fact.revision for fact in model.history] == list(range(1, len(model.history) + 1))
        for log in logs:
            assert await log.get("default", "churn") == model


@pytest.mark.asyncio
async def test_concurrent_promotions_each_beat_the_champion_they_replace(tmp_path: Path) -> None:
    async with server(tmp_path) as bus:
        first = ModelLog(bus, "test")
        for n in range(1, 11):
            await register(first, n, accuracy=n / 10)

        async def beat(version: int) -> bool:
            try:
                await promote(ModelLog(bus, "x"), version, gate="accuracy > champion.accuracy")
            except GateRefusedError:
                return False
            return True

        order = list(range(1, 11))
        random.Random(1).shuffle(order)
        passed = await asyncio.gather(*map(beat, order))
        model = await first.get("default", "churn")
        moves = [fact.version for fact in model.history if isinstance(fact, ModelPromoted)]
        assert moves == sorted(moves)
        assert moves[-1] == 10
        assert len(moves) == sum(passed)


@pytest.mark.asyncio
async def test_concurrent_registrations_leave_no_gap_and_no_duplicate_version(tmp_path: Path) -> None:
    async with server(tmp_path) as bus:
        logs = [ModelLog(bus, f"replica-{n}") for n in range(5)]
        found = await asyncio.gather(*(register(log, n) for log in logs for n in range(1, 7)))
        model = await ModelLog(bus, "reader").get("default", "churn")
        assert sorted(model.versions) == [1, 2, 3, 4, 5, 6]
        assert len(model.history) == 6
        by_artifact = {model.versions[number].artifact.size: number for number in model.versions}
        assert found == [by_artifact[n] for _ in logs for n in range(1, 7)]
        assert await logs[0].held("default") == {f"{n:064x}" for n in range(1, 7)}
        assert [one.name for one in await logs[1].all("default")] == ["churn"]
        assert await logs[0].held("other") == set()


@pytest.mark.asyncio
async def test_a_version_and_its_alias_are_written_atomically(tmp_path: Path) -> None:
    async with server(tmp_path) as bus:
        log, other = ModelLog(bus, "a"), ModelLog(bus, "b")
        model = await log.get("default", "churn")
        promotion = Promotion(alias="champion", version=0, cause="r/train/1")
        both = decide.register(model, origin(1), VersionDetails(), WHO, promotion).facts
        assert len(both) == 2
        await register(other, 2)  # takes the first of the two revisions
        assert not await log.append(both)
        assert [type(fact) for fact in (await log.get("default", "churn")).history] == [ModelRegistered]

        def decided(model: Model) -> Decision:
            return decide.register(model, origin(1), VersionDetails(), WHO, promotion)

        await log.change("default", "churn", decided)
        await other.change("default", "churn", decided)
        model = await ModelLog(bus, "reader").get("default", "churn")
        assert [type(fact) for fact in model.history] == [ModelRegistered, ModelRegistered, ModelPromoted]
        assert model.aliases["champion"].version == 2


@pytest.mark.asyncio
async def test_an_unreadable_fact_keeps_its_revision_and_blocks_nothing(tmp_path: Path) -> None:
    async with server(tmp_path) as bus:
        log = ModelLog(bus, "test")
        await register(log, 1)
        for revision, headers in ((2, {"ce-type": "penstock.model.promoted.v1"}), (3, {}), (4, {"ce-type": "x.y"})):
            await bus.publish(subjects.model("default", "churn", revision), b'{"no": "fact"}', headers)
        await bus.publish("models.default.churn.05", b"{}", {})  # another spelling of a subject is invalid
        await bus.publish("models.default", b"{}", {})
        assert await register(log, 2) == 2
        model = await ModelLog(bus, "reader").get("default", "churn")
        assert (model.revision, sorted(model.versions)) == (5, [1, 2])


@pytest.mark.asyncio
async def test_a_lost_answer_is_recovered_by_a_retry(tmp_path: Path) -> None:
    async with server(tmp_path) as bus:
        log = ModelLog(bus, "test")
        request, lost = bus.request, 0

        async def loses(subject: str, *args: Any, **more: Any) -> Any:
            nonlocal lost
            answer = await request(subject, *args, **more)
            if subject.startswith("models.") and lost < 2:
                lost += 1
                raise UnavailableError("the answer is lost")
            return answer

        bus.request = loses  # type: ignore[method-assign]
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await register(log, 1) if lost == 0 else await promote(log, 1)
        assert await register(log, 1) == 1
        assert (await promote(log, 1)).facts == ()
        assert len((await log.get("default", "churn")).history) == 2


@pytest.mark.asyncio
async def test_a_fact_over_the_message_limit_is_rejected(tmp_path: Path) -> None:
    async with server(tmp_path) as bus:
        log = ModelLog(bus, "test")
        about = VersionDetails(params={"text": "x" * (bus.client.max_payload + 1)})
        with pytest.raises(BusError, match="exceeds the limit of the server"):
            await log.change("default", "churn", lambda model: decide.register(model, origin(1), about, WHO))
        assert await register(log, 1) == 1
        with pytest.raises(NotFoundError):
            await promote(log, 9)
