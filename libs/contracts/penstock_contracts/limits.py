"""Limits over HTTP: what they are set to, who holds slots and who waits for them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MOST_SLOTS = 100_000


class LimitBody(BaseModel):
    """What a limit is set to. With 0 slots nobody gets one until it is set anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slots: int = Field(ge=0, le=MOST_SLOTS, strict=True)


class SlotHolder(BaseModel):
    """An attempt, or a run (without step and attempt), that holds a slot or waits for one."""

    run_id: str
    step: str | None = None
    attempt: int | None = None
    since: float = Field(description="Unix seconds: when it got its slot, or began to wait")
    cancel_requested: bool = Field(default=False, description="whether it was told to make room for a newer run")


class SlotWaiter(SlotHolder):
    """One that waits. `priority` is its own, `effective` counts what it gained by waiting; the highest is next."""

    priority: int
    effective: float


class LimitSummary(BaseModel):
    """A limit: `slots` as the platform has it set; null where each step says its own number."""

    name: str
    slots: int | None = None
    in_use: int = 0
    waiting: int = 0
    more_waiting: bool = Field(default=False, description="whether more wait than are counted")


class LimitView(LimitSummary):
    """A limit with who holds its slots and who waits, in the order of their turns."""

    holders: list[SlotHolder] = Field(default_factory=list[SlotHolder])
    waiters: list[SlotWaiter] = Field(default_factory=list[SlotWaiter])


class LimitList(BaseModel):
    """All limits that are set or in use, by name."""

    limits: list[LimitSummary]
