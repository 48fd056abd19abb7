"""Limits over HTTP: their sizes, the holders of slots, the waiters."""

from __future__ import annotations

from pydantic import BaseModel, Field

from penstock_contracts.bodies import RequestBody

MOST_SLOTS = 100_000


class LimitBody(RequestBody):
    """Set a limit. With 0 slots, no attempt gets a slot until the limit is set again."""

    slots: int = Field(ge=0, le=MOST_SLOTS, strict=True)


class SlotHolder(BaseModel):
    """An attempt, or a run (without step and attempt), that holds a slot or waits for one."""

    run_id: str
    step: str | None = None
    attempt: int | None = None
    since: float = Field(description="Unix seconds: when it acquired its slot, or started to wait")
    cancel_requested: bool = Field(default=False, description="whether it is being cancelled for a newer run")


class SlotWaiter(SlotHolder):
    """A waiter. `effective` is its priority, increased by waiting time; the highest is next."""

    priority: int
    effective: float


class LimitSummary(BaseModel):
    """A limit: `slots` is the number that was set; null if the numbers in the pipelines count."""

    name: str
    slots: int | None = None
    in_use: int = 0
    waiting: int = 0
    more_waiting: bool = Field(default=False, description="whether there are more waiters than counted")


class LimitView(LimitSummary):
    """A limit with the holders of its slots, and the waiters in the order in which they get slots."""

    holders: list[SlotHolder] = Field(default_factory=list[SlotHolder])
    waiters: list[SlotWaiter] = Field(default_factory=list[SlotWaiter])


class LimitList(BaseModel):
    """All limits that are set or in use, by name."""

    limits: list[LimitSummary]
