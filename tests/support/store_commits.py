"""Commits for tests of stores, and the states that stores must have after them."""

from __future__ import annotations

import secrets
from dataclasses import replace

from gpudev_hub.core.access_model import Access, AccessSweep, LimitRule, Person, Spending
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change, Commit, HistoryEntry, Slot
from gpudev_hub.core.live_state import KINDS, LiveState, Record
from gpudev_hub.core.model import (
    HOUR,
    CapacityBlock,
    Claim,
    Node,
    NodeSlots,
    Owner,
    Place,
    Request,
    Reservation,
    Shape,
)
from gpudev_hub.core.ports import Store
from gpudev_hub.core.usage import OpenClaim, OpenRequest, Sums, UsageDay, UsageHead


def reservation(id: str, seq: int = 1, subject: str = "local:alice") -> Reservation:
    return Reservation(
        id=id,
        seq=seq,
        owner=Owner(subject, subject.removeprefix("local:"), "A. Lice"),
        request=Request(Shape(2), "p5", 4 * HOUR, "image", "dëmo"),
        request_id=f"request-{id}",
        created_at=1_000,
        startup=60_000,
        teardown=30_000,
        cap=16,
        place=Place(5_000, 9_000, ("node-1",)),
        excluded=frozenset({"node-2"}),
        warned=(30, 15),
        allocation=(NodeSlots("node-1", (0, 1)),),
    )


def claim(id: str, attempt: int = 1, slots: tuple[int, ...] = (0, 1)) -> Claim:
    return Claim(id, attempt, "local:alice", "p5", (NodeSlots("node-1", slots),), hard_end=99_000)


def taken(*claims: Claim) -> tuple[tuple[Slot, tuple[str, int]], ...]:
    """Return all slots of these claims."""
    return tuple(
        (Slot(part.node, index), claim.key)
        for claim in claims
        for part in claim.allocation
        for index in part.slots
    )


NODE = Node(
    "node-1",
    "p5",
    8,
    "zone-a",
    until=77,
    reason="KernelReady is False: ForkFailedOutOfPIDs",
    unhealthy=("KernelReady",),
    block=CapacityBlock("cr-1", 77, "EC2 does not answer"),
)


def changed(*records: Record, gone: bool = False, cause: Cause = Cause.REQUESTED) -> tuple[Change, ...]:
    return tuple(Change(record, cause, "local:alice", gone) for record in records)


def commit(
    n: int, *changes: Change, epoch: int = 1, **slots: tuple[tuple[Slot, tuple[str, int]], ...]
) -> Commit:
    return Commit(epoch, n, secrets.token_hex(8), 1_000 * n, changes, **slots)


async def everything(store: Store) -> list[HistoryEntry]:
    entries: list[HistoryEntry] = []
    cursor: int | None = 0
    while cursor is not None:
        page, cursor = await store.history(None, cursor, 2)
        entries += page
    return entries


def fold(entries: list[HistoryEntry]) -> tuple[object, ...]:
    """Return the live state after a history."""
    state = LiveState()
    for entry in entries:
        state.apply(entry.change.record, gone=entry.change.gone)
    return hot(state)


def hot(state: LiveState) -> tuple[object, ...]:
    return tuple(getattr(state, kind.table) for kind in KINDS.values())


ALICE = Person(
    "github:1", "alice", "Alice-L", ("pytorch/metamates",), True, Access.REVOKED, "left the team", 7, 5
)
RULE = LimitRule("team:pytorch/metamates", None, "github:1", 4, "quiet", running_gpus=4, gpu_hours_week=80)
SPENDING = Spending("github:1", "p5", week=100, week_gpu_ms=5, month=90, month_gpu_ms=15)
ACCESS_RECORDS = (
    ALICE,
    replace(ALICE, subject="github:2", access=Access.ALLOWED),
    RULE,
    replace(RULE, pool="p5", gpu_hours_week=None),
    replace(RULE, scope="person:github:1", hold_per_request=HOUR),
    SPENDING,
    replace(SPENDING, pool="t4"),
    AccessSweep(33),
)


def usage_day(day: int, n: int, held: int) -> UsageDay:
    sums = Sums(2, 3, held, 4, 5, 6, 7, 8, 9, {"released": 2, "expired": 1})
    return UsageDay(day, n, {("github:1", "p5", 8): sums, ("local:älice", "p5", 16): Sums(held=1 << 45)})


def usage_head(n: int, first: int, last: int) -> UsageHead:
    return UsageHead(
        n=n,
        at=n * 1_000,
        first=first,
        last=last,
        requests={"a1": OpenRequest(5, 6, 7, ready=True), "b1": OpenRequest(None, 0, None, ready=False)},
        claims={("a1", 2): OpenClaim(("github:1", "p5", 8), 77)},
        logins={"github:1": "älice"},
    )
