"""The working state that decisions change: records, and a plan per pool in step with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from gpudev_hub.core.causes import Cause, Reason, Why
from gpudev_hub.core.effects import Effect
from gpudev_hub.core.errors import IllegalMove
from gpudev_hub.core.limits.budgets import charged
from gpudev_hub.core.limits.quota import counted_claims, counts
from gpudev_hub.core.limits.rules import limits_of
from gpudev_hub.core.model import Claim, Millis, NodeStatus, Place, Reservation
from gpudev_hub.core.planning.plan import Demand, Plan
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.sentences import Text, joined, say
from gpudev_hub.core.words import listing, node_state

from .timers import planned_end
from .unit_of_work import SERVICE, Records

OWNER_UNKNOWN = say("owner_unknown")
"""Why a request is blocked if the Hub does not know its owner."""
_OWNER_UNKNOWN_BEFORE = (
    "JupyterHub does not know its owner: log in to JupyterHub once",
    "its owner is not known to JupyterHub: log in there once",
)
"""The same text, as earlier versions stored it."""


def is_owner_unknown(blocked: Text | None) -> bool:
    """Return whether a request is blocked because the Hub does not know its owner."""
    return blocked == OWNER_UNKNOWN or blocked in _OWNER_UNKNOWN_BEFORE


def demand_key(id: str, attempt: int) -> str:
    """Return the plan's key of an attempt, queued (a demand) or with slots (an occupation)."""
    return f"{id}/{attempt}"


def id_of(key: str) -> str:
    """Return the reservation of a plan's key."""
    return key.partition("/")[0]


def demand_of(reservation: Reservation) -> Demand:
    """Return a queued reservation as the planner sees it."""
    return Demand(
        key=demand_key(reservation.id, reservation.attempt + 1),
        owner=reservation.owner.subject,
        gpus=reservation.request.shape.gpus,
        nodes=reservation.request.shape.nodes,
        length=reservation.length,
        cap=reservation.cap,
        order=reservation.seq,
        excluded=reservation.excluded,
    )


def is_missed(reservation: Reservation, now: Millis) -> bool:
    """Return whether a start now in its present or lost place leaves less than half of the hold."""
    place = reservation.place or reservation.lost
    least = reservation.startup + reservation.request.hold // 2 + reservation.teardown
    return place is not None and place.end - now < least


def overdue_cause(claims: Iterable[Claim]) -> Reason:
    """Return the cause of what follows from servers that did not stop in time."""
    late = sorted({(claim.hard_end, claim.reservation) for claim in claims})
    told = [say("stop_overran", reservation=reservation, at=hard_end) for hard_end, reservation in late]
    return Reason(Cause.STOP_OVERRAN, joined(told, "all"))


class WorkingState(Records):
    """Records and plans. Decisions change it in place; after a failed commit it is rebuilt."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.plans: dict[str, Plan] = {pool.name: Plan() for pool in policy.pools}
        self.displaced: dict[str, Why] = {}
        """Queued reservations whose stored place is not in the plan, and why. They are placed again soon."""
        self.raised: set[str] = set()
        """Queued requests planned with a lower limit on running GPUs than their owner has now."""
        self.retry: dict[str, tuple[Why, int]] = {}
        """Pools whose blocked requests should be tried again: why, and up to which number they were."""
        self.freed: set[str] = set()
        """Pools with freed time that holes and cascade have not used up."""
        self.waiting: set[str] = set()
        """Queued reservations whose start has come, and which wait for late slots or an unavailable node."""
        self.held_up: dict[str, tuple[Millis, Why]] = {}
        """Since when, and why, a reservation waits whose start has come."""
        self.to_settle: set[str] = set()
        """People whose reservations may not agree with their access yet."""
        self.pending_effects: list[Effect] = []
        """Effects that nobody has taken."""

    def take_effects(self) -> list[Effect]:
        """Return the effects of what was decided since the last call, refused requests included."""
        effects, self.pending_effects = self.pending_effects, []
        return effects

    def running_limit(self, reservation: Reservation) -> int:
        """Return how many GPUs the owner may hold at once in the reservation's pool by the present limits."""
        subject, pool = reservation.owner.subject, reservation.request.pool
        return limits_of(self.policy, self, subject, pool).values.running_gpus

    def plan_of(self, record: Reservation | Claim) -> Plan:
        return self.plans[record.request.pool if isinstance(record, Reservation) else record.pool]

    def promise_of(self, key: str) -> Millis:
        """Return the guaranteed start of the queued request with this plan key."""
        promise = self.reservations[id_of(key)].promise
        assert promise is not None, f"{key} has a place and no promise"
        return promise

    def start_of(self, key: str) -> Millis:
        """Return the planned start of the queued request with this plan key."""
        place = self.reservations[id_of(key)].place
        assert place is not None, f"{key} has no place"
        return place.start

    # Claims and the plan

    def add_claim(self, claim: Claim, cause: Why, now: Millis) -> None:
        """Add a claim, and displace the places that it leaves no room for."""
        self.put(claim, cause)
        self.displace(self.occupy(claim, now), cause)

    def change_claim(self, claim: Claim, cause: Why) -> None:
        """Change a claim, and displace the places that it leaves no room for."""
        before = self.claims[claim.key]
        self.put(claim, cause)
        if self._end(before) != self._end(claim):
            self.refresh(claim, cause)

    def refresh(self, claim: Claim, cause: Why) -> None:
        """Update the plan after a claim's end, or whether it counts against its owner, may have changed."""
        end = self._end(claim)
        self.displace(self.plan_of(claim).reshape(demand_key(*claim.key), end, self.counts(claim)), cause)
        self.freed.add(claim.pool)
        self.start_waiting()

    def start_waiting(self) -> None:
        """Try waiting starts again, after slots became free or a node came back."""
        for ref in sorted(self.waiting & self.reservations.keys()):
            waits = self.reservations[ref]
            if waits.place is not None:
                self.starts.set(("reservation", ref, 0), waits.place.start)

    def end(self, reservation: Reservation, cause: Why, actor: str = SERVICE) -> None:
        """Remove an ended reservation; claims left of it no longer count against its owner."""
        key = (reservation.owner.subject, reservation.request.pool)
        spending = charged(self.spending.get(key), reservation, reservation.ended_at or 0)
        if spending is not None:
            self.put(spending, cause, actor)
        self.drop(reservation, cause, actor)
        for claim in self.claims_of(reservation.id):
            self.refresh(claim, cause)

    def free_claim(self, claim: Claim, cause: Why, now: Millis) -> None:
        """Free the slots of a server that is observed gone."""
        self.drop(self.claims[claim.key], cause)
        self.plan_of(claim).vacate(demand_key(*claim.key), now)
        self.freed.add(claim.pool)
        self.start_waiting()

    def occupy(self, claim: Claim, since: Millis = 0) -> list[str]:
        """Put a claim into the plan. Returns the plan keys of places that no longer fit from ``since`` on."""
        return self.plan_of(claim).occupy(
            demand_key(*claim.key),
            claim.subject,
            len(claim.allocation[0].slots),
            tuple(part.node for part in claim.allocation),
            0,
            self._end(claim),
            self.counts(claim),
            since,
        )

    def _end(self, claim: Claim) -> Millis:
        return planned_end(claim, self.policy.pool(claim.pool).stop_overrun)

    def counts(self, claim: Claim) -> bool:
        return counts(claim, self.reservations, self.nodes)

    def is_up(self, node: str) -> bool:
        """Return whether the node is known and servers may start on it."""
        return node in self.nodes and self.nodes[node].status is NodeStatus.UP

    def is_planned(self, node: str) -> bool:
        """Return whether the node is known and may hold places."""
        return node in self.nodes and self.nodes[node].planned

    def away(self, place: Place) -> str | None:
        """Return the text that says which nodes of a place are not up; ``None`` if all are."""
        away = [name for name in place.nodes if not self.is_up(name)]
        states = (node_state(name, self.nodes.get(name)) for name in away)
        return listing(list(states), "and") if away else None

    # Queued requests and the plan

    def current_on(self, node: str) -> list[tuple[Claim, Reservation]]:
        """Return the claims of current attempts that have slots of the node, with their reservations."""
        there = sorted((c for c in self.claims.values() if c.is_on(node)), key=lambda c: c.key)
        found = ((claim, self.reservations.get(claim.reservation)) for claim in there)
        return [(claim, r) for claim, r in found if r is not None and r.attempt == claim.attempt]

    def overdue_for(self, reservation: Reservation, place: Place, now: Millis) -> list[Claim]:
        """Return the claims past their hard end that block a place whose start has come."""
        shape, pool = reservation.request.shape, reservation.request.pool
        names = [name for name in place.nodes if name in self.nodes]
        full = {name for name in names if len(self.free_slots(name)) < shape.gpus}
        mine = counted_claims(self, reservation.owner.subject, pool)
        held = sum(claim.gpus for claim in mine)
        found = [c for c in self.claims.values() if any(part.node in full for part in c.allocation)]
        if held + shape.total_gpus > reservation.cap:
            found += [claim for claim in mine if claim not in found]
        return [claim for claim in found if claim.hard_end <= now]

    def wait(self, id: str, since: Millis, cause: Why) -> None:
        """Record that a reservation, whose start has come, is held up."""
        self.waiting.add(id)
        self.held_up[id] = (self.held_up.get(id, (since,))[0], cause)

    def unplan(self, reservation: Reservation) -> None:
        """Take a queued reservation's place out of the plan, if it is there."""
        key = demand_key(reservation.id, reservation.attempt + 1)
        plan = self.plan_of(reservation)
        self.held_up.pop(reservation.id, None)
        if plan.place_of(key) is not None:
            plan.lift(key)
            self.freed.add(reservation.request.pool)
        self.displaced.pop(reservation.id, None)

    def move_places(
        self, moves: Mapping[str, Place], cause: Why, told: Callable[[Reservation, Place], Text] | None = None
    ) -> list[Reservation]:
        """Record places that the plan has moved; none may pass its promise."""
        moved = []
        for key, place in moves.items():
            reservation = self.reservations[id_of(key)]
            if reservation.promise is None or place.start > reservation.promise:
                raise IllegalMove(f"{reservation.id} must start by {reservation.promise}, not in {place}")
            detail = reservation.detail if told is None else told(reservation, place)
            self.put(replace(reservation, place=place, detail=detail), cause)
            moved.append(self.reservations[reservation.id])
        return moved

    def displace(self, keys: Iterable[str], cause: Why) -> None:
        """Record that these, lifted from the plan, must be placed again for this cause."""
        for key in keys:
            self.held_up.pop(id_of(key), None)
            self.displaced[id_of(key)] = cause

    def retry_blocked(self, pool: str, cause: Why) -> None:
        """Try all blocked requests of a pool again, after something was gained."""
        self.retry[pool] = (cause, -1)

    def settled(self) -> bool:
        """Return whether no request must be placed again and no freed time is left to use."""
        return not (self.displaced or self.retry or self.raised or self.freed)
