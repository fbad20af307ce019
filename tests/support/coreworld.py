"""Drives the core like the service: decides, folds commits into a history, and checks owners of slots."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpudev_hub.core.commit import Change, Changes, Slot, Snapshot
from gpudev_hub.core.decisions.decide import decide, next_due
from gpudev_hub.core.decisions.recovery import rebuild
from gpudev_hub.core.decisions.working_state import WorkingState
from gpudev_hub.core.effects import Decision, Effect, StartServer, StopServer
from gpudev_hub.core.events import (
    Compress,
    End,
    Event,
    Extend,
    NodesObserved,
    ServerObserved,
    ServerReady,
    Submit,
    Tick,
)
from gpudev_hub.core.model import (
    HOUR,
    MINUTE,
    SECOND,
    Millis,
    Node,
    NodeStatus,
    Outcome,
    Owner,
    Presence,
    Request,
    Reservation,
    Shape,
)
from gpudev_hub.core.policy import Policy, PoolSettings
from gpudev_hub.core.sentences import because
from gpudev_hub.core.words import plain

NOON: Millis = 1_795_435_200_000
"""23 Nov 2026, 12:00 UTC."""
TEARDOWN: Millis = 30 * SECOND
STARTUP: Millis = 60 * SECOND


def pool(name: str = "h100", gpus: int = 8, **fields: object) -> PoolSettings:
    return PoolSettings(name=name, gpus_per_node=gpus, images=("base", "nightly"), **fields)  # type: ignore[arg-type]


def policy(**fields: object) -> Policy:
    return Policy(**{"pools": (pool(),), **fields})  # type: ignore[arg-type]


def owner(name: str) -> Owner:
    return Owner(f"local:{name}", name, name)


def nodes(count: int = 2, gpus: int = 8, pool_name: str = "h100") -> tuple[Node, ...]:
    return tuple(Node(f"node-{i + 1}", pool_name, gpus, "zone-a") for i in range(count))


@dataclass
class Folded:
    """The state in a store: the live state, folded from the history, and the owner of every slot."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot(epoch=1, n=0, at=0, next_seq=1))
    slots: dict[Slot, tuple[str, int]] = field(default_factory=dict)
    history: list[tuple[int, Millis, Change]] = field(default_factory=list)

    def commit(self, changes: Changes, now: Millis) -> None:
        for slot, key in changes.free:
            assert self.slots.pop(slot) == key, f"{slot} is freed by {key}, who does not own it"
        for slot, key in changes.take:
            assert slot not in self.slots, f"invariant 1: {slot} is taken by {key} and {self.slots[slot]}"
            self.slots[slot] = key
        if changes.records:
            self.snapshot.n += 1
            self.snapshot.at = now
        for change in changes.records:
            self.history.append((self.snapshot.n, now, change))
            self._fold(change)

    def copy(self) -> Folded:
        """Return an independent copy: commits to one are not in the other."""
        now = self.snapshot
        snapshot = Snapshot(now.epoch, now.n, now.at, now.next_seq)
        snapshot.take_tables(now)
        return Folded(snapshot, dict(self.slots), list(self.history))

    def _fold(self, change: Change) -> None:
        snapshot, record = self.snapshot, change.record
        if isinstance(record, Reservation):
            snapshot.next_seq = max(snapshot.next_seq, record.seq + 1)
        assert not change.gone or snapshot.known(record) is not None, f"{record} was gone already"
        snapshot.apply(record, gone=change.gone)


class Driver:
    """A core with a history, and a time that moves only when a test moves it."""

    def __init__(self, policy_: Policy | None = None, nodes_: tuple[Node, ...] | None = None) -> None:
        self.policy = policy_ or policy()
        self.world = WorkingState(self.policy)
        self.folded = Folded()
        self.now = NOON
        self.effects: list[Effect] = []
        self.changes = Changes()
        """The changes of the last decision."""
        self._count = 0
        if nodes_ is None:
            nodes_ = nodes()
        if nodes_:
            self.do(NodesObserved(nodes_))
            self.settle()

    @property
    def more(self) -> bool:
        """Return whether a `Compress` should follow."""
        return not self.world.settled()

    def do(self, event: Event) -> Decision:
        """Make one decision and commit it."""
        try:
            decision = decide(self.world, event, self.now)
            self.effects.extend(decision.effects)
            return decision
        finally:
            self.changes = self.world.drain()
            self.folded.commit(self.changes, self.now)

    def settle(self) -> None:
        """Repeat ``Compress`` until nothing is left to compress."""
        for _ in range(10_000):
            if not self.more:
                return
            self.do(Compress())
        raise AssertionError("compression does not come to an end")

    def go(self, to: Millis) -> None:
        """Move the time forward, with a tick at every due instant."""
        while (due := next_due(self.world, self.now)) is not None and due <= to:
            self.now = due
            self.do(Tick())
        self.now = to

    def restart(self) -> None:
        """Discard the working state, and rebuild it from the commits."""
        self.world = rebuild(self.policy, self.folded.snapshot, self.now)

    # Short forms of common events

    def submit(
        self,
        who: str,
        gpus: int = 1,
        hours: float = 1,
        nodes: int = 1,
        name: str | None = None,
        request_id: str | None = None,
    ) -> Reservation:
        self._count += 1
        settings = self.policy.pools[0]
        request = Request(Shape(gpus, nodes), settings.name, round(hours * HOUR), "base", name)
        decision = self.do(Submit(f"r{self._count}", owner(who), request, request_id))
        assert decision.reservation is not None
        return decision.reservation

    def get(self, id: str) -> Reservation:
        return self.world.reservations[id]

    def see(
        self, id: str, presence: Presence = Presence.ABSENT, detail: str = "", complete: bool = True
    ) -> None:
        self.do(ServerObserved(id, self.attempt(id), presence, detail, complete))

    def attempt(self, id: str) -> int:
        if id in self.world.reservations:
            return self.world.reservations[id].attempt
        return self.world.claims_of(id)[-1].attempt

    def ready(self, id: str) -> Reservation:
        self.see(id, Presence.PRESENT)
        self.do(ServerReady(id, self.attempt(id)))
        return self.get(id)

    def end(self, id: str, outcome: Outcome | None = None) -> Reservation:
        decision = self.do(End(id, "local:somebody", outcome))
        assert decision.reservation is not None
        return decision.reservation

    def extend(self, id: str, hours: float) -> Reservation:
        decision = self.do(Extend(id, "local:somebody", round(hours * HOUR)))
        assert decision.reservation is not None
        return decision.reservation

    def node(self, name: str, status: NodeStatus) -> None:
        """Observe one node in another state, and all other nodes unchanged."""
        seen = tuple(
            Node(n.name, n.pool, n.gpus, n.group, status if n.name == name else n.status, n.until)
            for n in self.world.nodes.values()
        )
        self.do(NodesObserved(seen))

    def ended(self, id: str) -> Reservation:
        """Return the last record of a reservation that has ended."""
        records = [c.record for _, _, c in self.folded.history if isinstance(c.record, Reservation)]
        return next(r for r in reversed(records) if r.id == id and not r.live)

    def causes(self, id: str) -> list[str]:
        """Return the causes of the reservation's changes, in order."""
        changes = [c for _, _, c in self.folded.history if isinstance(c.record, Reservation)]
        return [plain(because(c.cause.value, c.detail), self.now) for c in changes if c.record.id == id]  # type: ignore[union-attr]

    def took(self, kind: type[StartServer | StopServer]) -> list[tuple[str, int]]:
        """Return (reservation, attempt) of the effects of this kind so far, and forget them."""
        found = [(e.id, e.attempt) for e in self.effects if isinstance(e, kind)]
        self.effects = [e for e in self.effects if not isinstance(e, kind)]
        return found


__all__ = [
    "HOUR",
    "MINUTE",
    "NOON",
    "SECOND",
    "STARTUP",
    "TEARDOWN",
    "Driver",
    "nodes",
    "owner",
    "policy",
    "pool",
]
